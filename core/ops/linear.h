// y = x W^T + b. Deals with every kind of weight: dense now; quantized, adapted and sharded weights
// are backings of the same Param.
#pragma once

#include "core/contract/layer.h"

namespace strata {

struct LinearArgs {
  Tensor x;       // (..., d_in)
  Tensor weight;  // (d_out, d_in)
  Tensor bias;    // (d_out,) or absent
  Tensor y;       // (..., d_out)
};

// One kernel for each part of the backward, so that a frozen weight or a constant input costs
// nothing.
struct LinearBackwardArgs {
  Tensor x, weight, dy;
  GradTarget dx, dweight, dbias;
};

// x: (..., d_in), weight: (d_out, d_in), bias: (d_out,) -> (..., d_out).
// Throws Error when the last axis of x is not d_in.
STRATA_API Tensor linear(Context& cx, Tensor x, Param weight, Param bias = {});

// The same on plain tensors: products with activations as "weights" and the tied LM head.
STRATA_API Tensor linear(Context& cx, Tensor x, Tensor weight, Tensor bias);

}  // namespace strata
