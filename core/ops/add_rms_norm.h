// A block joins the residual stream and the next block's norm reads it, in one pass over memory:
//   h' = h + scale * y,   n = h' / sqrt(mean(h'^2) + eps) * w
// The same as residual_add and then rms_norm; the norm sees h' as it is stored.
#pragma once

#include "core/ops/rms_norm.h"

namespace strata {

struct AddRmsNormArgs {
  Tensor h, y, weight;  // (..., d), weight (d,) or absent
  Tensor sum, n;        // (..., d): h' and its norm; sum may be h
  Tensor inv;           // (rows, groups): 1 / sqrt(mean + eps)
  double scale;
  RmsNormOptions options;
};

struct AddedNorm {
  Tensor h, n;
};

// h, y: (..., d), weight: (d,) or absent -> h' and n, (..., d). Unrecorded, h' is written over h.
// Backward, the gradient of n is added to the one of h' where that lies, which is then handed on as
// residual_add does: to y as a read-only alias (a copy if scale is not 1), to h as its own buffer.
STRATA_API AddedNorm add_rms_norm(Context& cx, Tensor h, Tensor y, Tensor weight,
                                  const RmsNormOptions& options = {}, double scale = 1);

// Unrecorded: h' is written over h, its norm over n and the inverse roots over inv (rows, groups),
// which may lie anywhere.
STRATA_API void add_rms_norm_into(Context& cx, Tensor h, Tensor y, Tensor weight, Tensor n,
                                  Tensor inv, const RmsNormOptions& options = {}, double scale = 1);

}  // namespace strata
