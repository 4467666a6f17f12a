// Matrix products on CUDA: cuBLAS and cuBLASLt, found at run time.
// C (m, n) = alpha op(A) (m, k) op(B) (k, n) + beta C, all row-major with rows `ld` elements apart.
//
// float and double are exact: true float32 (unless set_tf32 says otherwise) and float64. bf16 and
// f16 are multiplied in tensor cores, summed in float32, and C is rounded to T or stays float, as
// gradients of weights are. The same call gives the same bits in every run on one kind of card.
#pragma once

#include "core/contract/context.h"
#include "core/kernels/gemm.h"
#include "core/kernels/half.cuh"

namespace strata {

template <class T, class C = T>
STRATA_API void gemm_cuda(Stream stream, Trans ta, Trans tb, int64_t m, int64_t n, int64_t k,
                          Accum<T> alpha, const T* a, int64_t lda, const T* b, int64_t ldb,
                          Accum<T> beta, C* c, int64_t ldc);

// `count` products whose operands lie stride_* elements apart.
template <class T, class C = T>
STRATA_API void gemm_cuda_batched(Stream stream, Trans ta, Trans tb, int64_t m, int64_t n,
                                  int64_t k, Accum<T> alpha, const T* a, int64_t lda,
                                  int64_t stride_a, const T* b, int64_t ldb, int64_t stride_b,
                                  Accum<T> beta, C* c, int64_t ldc, int64_t stride_c,
                                  int64_t count);

// A product of two-byte numbers with what is added before it is rounded:
// C = alpha op(A) op(B) + beta R + bias. R may be C itself.
template <class T, class C>
struct HalfProduct {
  Trans ta = Trans::no, tb = Trans::no;
  int64_t m = 0, n = 0, k = 0;
  float alpha = 1;
  const T* a = nullptr;
  int64_t lda = 0, stride_a = 0;
  const T* b = nullptr;
  int64_t ldb = 0, stride_b = 0;
  float beta = 0;
  const C* r = nullptr;  // (m, n), not read when beta is 0
  int64_t ldr = 0;
  const T* bias = nullptr;  // (n,) on 16 bytes, or null; only where C is T
  C* c = nullptr;
  int64_t ldc = 0, stride_c = 0;
  int64_t count = 1;
};

// T: bf16, f16; C: T, float. R of a batch lies stride_c apart.
template <class T, class C>
STRATA_API void gemm_cuda_half(Stream stream, const HalfProduct<T, C>& p);

// float products may round their operands to ten bits (tf32), for the whole process. Off.
STRATA_API void set_tf32(bool on);

// Two-byte products may time the library's best guesses on their first call outside of a stream
// capture, and keep the fastest. Which one wins depends on the moment. Only guesses of the first
// one's kernel family and split of k are tried, which mostly give the same bits; the library does
// not promise it. Off.
STRATA_API void set_gemm_search(bool on);

// The memory the products of this stream work in, kGemmWorkspace bytes; whoever runs on the same
// stream may use it between products.
constexpr size_t kGemmWorkspace = size_t{32} << 20;  // what cuBLAS asks for on Hopper
STRATA_API void* gemm_workspace(Stream stream);

}  // namespace strata
