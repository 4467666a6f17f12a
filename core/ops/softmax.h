// Softmax over the last axis: y = exp(scale x - max) / sum.
#pragma once

#include "core/contract/context.h"

namespace strata {

struct SoftmaxArgs {
  Tensor x, y;  // (..., d)
  double scale;
};

struct SoftmaxBackwardArgs {
  Tensor y, dy;
  GradTarget dx;
  double scale;
};

// x: (..., d) -> (..., d), each row summing to one.
STRATA_API Tensor softmax(Context& cx, Tensor x, double scale = 1);

}  // namespace strata
