// float products in oneDNN, chosen between its two entries by shape. Not for layers: see gemm.h.
#pragma once

#include <cstdint>

namespace strata {

// As gemm(), on all threads; not to be called from inside a parallel region.
void onednn_gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
                 int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc);

}  // namespace strata
