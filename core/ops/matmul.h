// Batched matrix product: y = op(a) op(b) over the last two axes.
#pragma once

#include "core/contract/context.h"

namespace strata {

struct MatmulOptions {
  bool transpose_a = false, transpose_b = false;
  double alpha = 1;  // y = alpha op(a) op(b)
};

// c = alpha op(a) op(b) (+ c). Operands with batch 1 are shared.
struct MatmulArgs {
  Tensor a, b, c;  // (batch or 1, rows, cols) each
  bool transpose_a, transpose_b, accumulate;
  double alpha;
};

// a: (..., m, k), b: (..., k, n) -> (..., m, n), each transposed where the options say so. The
// leading axes are equal, or b has two axes only and is shared. Throws Error when they do not fit.
STRATA_API Tensor matmul(Context& cx, Tensor a, Tensor b, const MatmulOptions& options = {});

}  // namespace strata
