// The same numbers in another dtype: what leaves the activations' two bytes for float32 and back.
#pragma once

#include "core/contract/context.h"

namespace strata {

struct CastArgs {
  Tensor x, y;  // (..., d), each of a floating dtype
  bool accumulate;
};

// x: (...) of f32, f64, bf16 or f16 -> y as x, rounded to nearest even. x itself when it is of that
// dtype. Throws Error when `to` is no floating dtype.
STRATA_API Tensor cast(Context& cx, Tensor x, DType to);

}  // namespace strata
