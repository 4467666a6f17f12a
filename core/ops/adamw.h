// The kernels of the optimizer step; the formula is in core/train/adamw.h.
#pragma once

#include "core/contract/context.h"

namespace strata {

// What changes from step to step, in the memory of the device, so that a recorded step can be
// replayed.
struct StepScalars {
  double lr, correction1, correction2;  // correction: 1 - beta^t
  double max_norm;                      // of the gradient; 0: no clipping
  double squares;                       // of all gradients, summed
  double norm, clip;                    // the root; the factor that brings it below max_norm
  double apply;                         // 1, or 0: the loss or the norm is not finite
};

// Up to kPieceNumbers numbers of one parameter. `master` holds the exact values where `value` is a
// two-byte copy for the forward; else it is null.
struct AdamWPiece {
  void *value, *master;
  const void* grad;
  void *m, *v;
  double decay, lr_scale;
  int32_t count;
  DType value_dtype;
};

constexpr int64_t kPieceNumbers = 16384;

struct AdamWArgs {
  const AdamWPiece* pieces;  // on the device, as the scalars
  int64_t count;
  const StepScalars* scalars;
  double beta1, beta2, eps;
};

constexpr int64_t kNormPartials = 1024;

// The sum of squares of a gradient, in the order of fixed blocks.
struct SquaredNormArgs {
  Tensor x;
  Tensor sum;      // (1,) f64, added to
  Tensor partial;  // (kNormPartials,) f64: room for the sums of blocks
};

// norm, clip and apply from squares and max_norm; `loss` (1,) f64 may be absent.
struct SettleStepArgs {
  StepScalars* scalars;
  Tensor loss;
};

}  // namespace strata
