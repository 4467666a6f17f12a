// y = x W_g^T for rows sorted by group: experts, per-group projections. One call multiplies all
// groups; a group may be empty.
#pragma once

#include "core/contract/context.h"

namespace strata {

struct GroupedLinearArgs {
  Tensor x;        // (rows, d_in)
  Tensor weight;   // (groups, d_out, d_in)
  Tensor offsets;  // (groups + 1,) i32: group g has the rows [offsets[g], offsets[g + 1])
  Tensor y;        // (rows, d_out)
};

struct GroupedLinearBackwardArgs {
  Tensor x, weight, offsets, dy;
  GradTarget dx, dweight;
};

// x: (rows, d_in), weight: (groups, d_out, d_in), offsets: (groups + 1,) i32 from 0 to rows ->
// (rows, d_out). Throws Error when the shapes do not fit.
STRATA_API Tensor grouped_linear(Context& cx, Tensor x, Tensor weight, Tensor offsets);

}  // namespace strata
