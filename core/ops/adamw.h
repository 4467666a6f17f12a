// The kernels of the optimizer step; the formula is in core/train/adamw.h.
#pragma once

#include "core/contract/context.h"

namespace strata {

struct AdamWArgs {
  Tensor value, grad, m, v;  // of one parameter
  double lr, beta1, beta2, eps, decay, clip;
  double correction1, correction2;  // 1 - beta^t
};

// The sum of squares of a gradient, in the order of fixed blocks.
struct SquaredNormArgs {
  Tensor x;
  Tensor sum;  // (1,) f64
};

}  // namespace strata
