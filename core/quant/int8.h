// Plain int8 with one scale per row: w ~ scale[r] * code, scale[r] = max |w[r]| / 127. The largest
// error of a row is half its scale.
#pragma once

#include <cstdint>

#include "core/contract/tensor.h"

namespace strata {

// x: (rows, cols) -> codes: (rows, cols) in [-127, 127], scales: (rows,). A row of zeros has scale
// 0. Throws Error for a value that is not finite.
STRATA_API void int8_encode(const float* x, int64_t rows, int64_t cols, int8_t* codes,
                            float* scales);
STRATA_API void int8_decode(const int8_t* codes, const float* scales, int64_t rows, int64_t cols,
                            float* x);

struct Int8Error {
  // The largest |w - w'| in units of half its row's scale; at most 1 but for rounding.
  double worst = 0;
  double rms = 0;  // sqrt(sum (w - w')^2 / sum w^2)
};

// Replaces `weight` (f32 or f64, any rank; rows as in Tensor) by what its int8 codes decode to.
STRATA_API Int8Error int8_round_trip(Tensor weight);

}  // namespace strata
