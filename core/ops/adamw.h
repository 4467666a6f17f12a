// The kernels of the optimizer step; the formula is in core/train/adamw.h.
#pragma once

#include "core/contract/context.h"

namespace strata {

struct AdamWArgs {
  Tensor value, grad, m, v;  // of one parameter
  double lr, beta1, beta2, eps, decay, clip;
  double correction1, correction2;  // 1 - beta^t
};

constexpr int64_t kNormPartials = 1024;

// The sum of squares of a gradient, in the order of fixed blocks.
struct SquaredNormArgs {
  Tensor x;
  Tensor sum;      // (1,) f64, added to
  Tensor partial;  // (kNormPartials,) f64: room for the sums of blocks
};

}  // namespace strata
