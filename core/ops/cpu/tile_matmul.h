// Small matrix products inside one core's cache, C (m, n) (+)= A B, blocked in registers.
// For kernel files only (internal linkage: one copy per instruction set).
#pragma once

#include "core/kernels/vec.h"

namespace strata {
namespace {

// kM rows by kN vectors of C stay in registers. Each element of C is one chain of fused
// multiply-adds in the order of k, so that the blocking never changes a bit.
template <class T, int kM, int kN, bool kTransA>
inline void tile_block(int64_t depth, const T* a, int64_t lda, const T* b, int64_t ldb, T* c,
                       int64_t ldc, bool accumulate) {
  constexpr int kW = kLanes<T>;
  Vec<T> acc[kM][kN];
#pragma GCC unroll 16
  for (int i = 0; i < kM; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < kN; ++j) {
      acc[i][j] = accumulate ? load<T>(c + i * ldc + j * kW) : Vec<T>{};
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    Vec<T> bk[kN];
#pragma GCC unroll 16
    for (int j = 0; j < kN; ++j) bk[j] = load<T>(b + k * ldb + j * kW);
#pragma GCC unroll 16
    for (int i = 0; i < kM; ++i) {
      const Vec<T> ai = splat<T>(kTransA ? a[k * lda + i] : a[i * lda + k]);
#pragma GCC unroll 16
      for (int j = 0; j < kN; ++j) acc[i][j] += ai * bk[j];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kM; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < kN; ++j) store<T>(c + i * ldc + j * kW, acc[i][j]);
  }
}

template <class T, int kN, bool kTransA>
[[gnu::noinline]] void tile_columns(int64_t m, int64_t depth, const T* a, int64_t lda, const T* b,
                                    int64_t ldb, T* c, int64_t ldc, bool accumulate) {
  constexpr int kM = kN == 4 ? 6 : (kVecBytes == 64 ? 12 / kN + 2 : 8 / kN + 2);
  const int64_t step = kTransA ? 1 : lda;
  int64_t i = 0;
  for (; i + kM <= m; i += kM) {
    tile_block<T, kM, kN, kTransA>(depth, a + i * step, lda, b, ldb, c + i * ldc, ldc, accumulate);
  }
  for (; i + 4 <= m; i += 4) {
    tile_block<T, 4, kN, kTransA>(depth, a + i * step, lda, b, ldb, c + i * ldc, ldc, accumulate);
  }
  for (; i < m; ++i) {
    tile_block<T, 1, kN, kTransA>(depth, a + i * step, lda, b, ldb, c + i * ldc, ldc, accumulate);
  }
}

// C (m, n) = A (m, depth) B (depth, n), or C += A B. n is a multiple of the vector length. A is
// read as a[i * lda + k], or as a[k * lda + i] if kTransA.
template <class T, bool kTransA>
inline void tile_matmul(int64_t m, int64_t n, int64_t depth, const T* a, int64_t lda, const T* b,
                        int64_t ldb, T* c, int64_t ldc, bool accumulate) {
  constexpr int kW = kLanes<T>;
  int64_t j = 0;
  if constexpr (kVecBytes == 64) {  // 32 registers
    for (; j + 4 * kW <= n; j += 4 * kW) {
      tile_columns<T, 4, kTransA>(m, depth, a, lda, b + j, ldb, c + j, ldc, accumulate);
    }
  }
  for (; j + 2 * kW <= n; j += 2 * kW) {
    tile_columns<T, 2, kTransA>(m, depth, a, lda, b + j, ldb, c + j, ldc, accumulate);
  }
  for (; j + kW <= n; j += kW) {
    tile_columns<T, 1, kTransA>(m, depth, a, lda, b + j, ldb, c + j, ldc, accumulate);
  }
}

}  // namespace
}  // namespace strata
