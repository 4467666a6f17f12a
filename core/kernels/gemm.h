// The matrix product of the CPU, for kernel files. Everything is row-major, with raw pointers and
// leading dimensions counted in elements; op(X) is X or its transpose.
//
// float products above a measured size run in oneDNN, the others and all double products in the
// register-blocked kernels of gemm_cpu.cpp, compiled per instruction set. Work below a measured
// size stays on the calling thread, and so does every call from inside an OpenMP parallel region.
// The same call with the same number of threads gives the same bits.
#pragma once

#include <cstdint>

#include "core/contract/error.h"

namespace strata {

enum class Trans : uint8_t { no, yes };

// C = alpha op(A) op(B) + beta C, with op(A) (m, k), op(B) (k, n), C (m, n).
// beta = 0 does not read C. m, n, k may be 0. C must not overlap A or B.
template <class T>
STRATA_API void gemm(Trans ta, Trans tb, int64_t m, int64_t n, int64_t k, T alpha, const T* a,
                     int64_t lda, const T* b, int64_t ldb, T beta, T* c, int64_t ldc);

// `count` products of one shape; the operands of product i start at a + i*stride_a, b + i*stride_b,
// c + i*stride_c. stride_a and stride_b may be 0 (shared operand), the C blocks must be disjoint.
template <class T>
STRATA_API void gemm_batched(int64_t count, Trans ta, Trans tb, int64_t m, int64_t n, int64_t k,
                             T alpha, const T* a, int64_t lda, int64_t stride_a, const T* b,
                             int64_t ldb, int64_t stride_b, T beta, T* c, int64_t ldc,
                             int64_t stride_c);

// One product of a group, as in gemm().
template <class T>
struct GemmItem {
  int64_t m, n, k;
  const T* a;
  int64_t lda;
  const T* b;
  int64_t ldb;
  T* c;
  int64_t ldc;
};

// Products of different shapes and places (experts, ragged documents); their C must be disjoint.
template <class T>
STRATA_API void gemm_grouped(int64_t count, const GemmItem<T>* items, Trans ta, Trans tb, T alpha,
                             T beta);

}  // namespace strata
