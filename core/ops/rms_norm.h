// Norms over groups of the last axis, and the gated norms of state-space mixers.
//   rms_norm    y = x / sqrt(mean(x^2) + eps) * w            (Zhang and Sennrich, arXiv 1910.07467)
//   layer_norm  y = (x - mean) / sqrt(var + eps) * w + b     (Ba et al., arXiv 1607.06450)
//   gated_rms_norm   gate first: rms(x silu(z)) w;   norm first: rms(x) w silu(z)
// Statistics are in the accumulation type.
#pragma once

#include "core/contract/context.h"

namespace strata {

struct RmsNormOptions {
  double eps = 1e-5;
  int64_t group = 0;             // width of a group; 0: the whole last axis
  bool weight_plus_one = false;  // the stored weight is w - 1
};

struct RmsNormArgs {
  Tensor x;       // (..., d)
  Tensor weight;  // (d,) or absent
  Tensor y;       // (..., d)
  Tensor inv;     // (rows, groups): 1 / sqrt(mean + eps)
  RmsNormOptions options;
};

struct RmsNormBackwardArgs {
  Tensor x, weight, inv, dy;
  GradTarget dx, dweight;
  Tensor partial;  // (row blocks, d)
  RmsNormOptions options;
};

// x: (..., d), weight: (d,) or absent -> (..., d). Throws Error when the group does not divide d.
STRATA_API Tensor rms_norm(Context& cx, Tensor x, Tensor weight,
                           const RmsNormOptions& options = {});

struct GatedRmsNormArgs {
  Tensor x, z;    // (..., d)
  Tensor weight;  // (d,) or absent
  Tensor y, inv;  // (..., d), (rows, groups)
  RmsNormOptions options;
  bool norm_before_gate;
};

struct GatedRmsNormBackwardArgs {
  Tensor x, z, weight, inv, dy;
  GradTarget dx, dz, dweight;
  Tensor partial;  // (row blocks, d)
  RmsNormOptions options;
  bool norm_before_gate;
};

// x, z: (..., d), weight: (d,) -> (..., d).
STRATA_API Tensor gated_rms_norm(Context& cx, Tensor x, Tensor z, Tensor weight,
                                 const RmsNormOptions& options = {}, bool norm_before_gate = false);

struct LayerNormOptions {
  double eps = 1e-5;
  bool weight_plus_one = false;
};

struct LayerNormArgs {
  Tensor x, weight, bias, y;  // weight, bias: (d,) or absent
  Tensor stats;               // (rows, 2): mean, 1 / sqrt(var + eps)
  LayerNormOptions options;
};

struct LayerNormBackwardArgs {
  Tensor x, weight, stats, dy;
  GradTarget dx, dweight, dbias;
  Tensor partial;  // (row blocks, 2 d)
  LayerNormOptions options;
};

// x: (..., d), weight and bias: (d,) or absent -> (..., d).
STRATA_API Tensor layer_norm(Context& cx, Tensor x, Tensor weight, Tensor bias,
                             const LayerNormOptions& options = {});

}  // namespace strata
