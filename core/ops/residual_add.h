// h + scale * y: how a block joins the residual stream. The gradient of the sum is handed on
// without a copy where it can be: to h as its own buffer, to y as a read-only alias.
#pragma once

#include "core/contract/context.h"

namespace strata {

struct ResidualAddArgs {
  Tensor h, y, out;
  double scale;     // out = h + scale * y; h absent: out = scale * y
  bool accumulate;  // out += instead
};

// h, y: (batch, seq_len, d_model). Unrecorded, the sum is written over h.
STRATA_API Tensor residual_add(Context& cx, Tensor h, Tensor y, double scale = 1);

// out = h + scale * y into memory that the caller has; not recorded. h may be absent.
STRATA_API void residual_add_into(Context& cx, Tensor out, Tensor h, Tensor y, double scale = 1);

// Adds scale * g to the gradient of x, or makes g its gradient when that is all there is to it.
// `adopt`: x may write into g afterwards.
STRATA_API void pass_gradient(Context& cx, Tensor x, Tensor g, double scale, bool adopt);

}  // namespace strata
