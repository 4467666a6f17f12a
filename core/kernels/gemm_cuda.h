// Matrix products on CUDA: cuBLAS, found at run time, in true float32 and float64.
// C (m, n) = alpha op(A) (m, k) op(B) (k, n) + beta C, all row-major with rows `ld` elements apart.
#pragma once

#include "core/contract/context.h"
#include "core/kernels/gemm.h"

namespace strata {

template <class T>
STRATA_API void gemm_cuda(Stream stream, Trans ta, Trans tb, int64_t m, int64_t n, int64_t k,
                          T alpha, const T* a, int64_t lda, const T* b, int64_t ldb, T beta, T* c,
                          int64_t ldc);

// `count` products whose operands lie stride_* elements apart.
template <class T>
STRATA_API void gemm_cuda_batched(Stream stream, Trans ta, Trans tb, int64_t m, int64_t n,
                                  int64_t k, T alpha, const T* a, int64_t lda, int64_t stride_a,
                                  const T* b, int64_t ldb, int64_t stride_b, T beta, T* c,
                                  int64_t ldc, int64_t stride_c, int64_t count);

}  // namespace strata
