// x = value, everywhere. No gradient: used on gradients, masks and states themselves.
#pragma once

#include "core/contract/context.h"

namespace strata {

struct FillArgs {
  Tensor x;
  double value;
};

// Sets every element of x (f32, f64 or i64) to `value`.
STRATA_API void fill(Context& cx, Tensor x, double value);

}  // namespace strata
