// The decays of a chunk of 64 tokens as a matrix, and its adjoint. With diagonal d_j,
//   M_ij = a_{j+1} ... a_i d_j for j <= i, 0 above the diagonal.
// Products only, column by column: a may be zero or negative. Tokens past the end of a ragged chunk
// have a = 1 and d = 0, which leaves everything as it is.
#pragma once

#include "core/kernels/tile_product.cuh"

namespace strata {

#ifdef __CUDACC__

// put(i, j, M_ij) for all i, j of the tile. a, d: (64,) shared. The first 64 threads work.
template <class T, class F>
__device__ __forceinline__ void decay_columns(const T* a, const T* d, const F& put) {
  const int j = threadIdx.x;
  if (j >= kTile) return;
  T m = d[j];
  for (int i = 0; i < j; ++i) put(i, j, T(0));
  put(j, j, m);
  for (int i = j + 1; i < kTile; ++i) put(i, j, m *= a[i]);
}

// The gradients of a and d. grad(i, j), for j <= i, is the gradient of M_ij, seed(j) a further one
// of the last row, and dp (64,) that of the running products p_i = a_0 ... a_i; all are carried
// upwards through M_i = a_i M_{i-1} and p_i = a_i p_{i-1}:
//   U_i = grad_i + a_{i+1} U_{i+1},  da_i = U_i . M_{i-1} + P_i p_{i-1},  dd_i = U_ii.
// m: M; terms: (64, 64) shared, written (grad(i, j) may read terms[i * 64 + j]); p: (64,);
// dp becomes P. da, dd: (64,) shared, valid when this returns.
template <class T, class G, class S>
__device__ __forceinline__ void decay_adjoint(const T* a, const T* m, const T* p, const G& grad,
                                              const S& seed, T* terms, T* dp, T* da, T* dd) {
  const int thread = threadIdx.x;
  if (thread < kTile) {
    const int j = thread;
    T u = seed(j);
    for (int i = kTile - 1; i >= j; --i) {
      if (i + 1 < kTile) u *= a[i + 1];
      u += grad(i, j);
      terms[i * kTile + j] = i > j ? u * m[(i - 1) * kTile + j] : T(0);
    }
    for (int i = 0; i < j; ++i) terms[i * kTile + j] = T(0);
    dd[j] = u;
  } else if (thread == kTile) {
    for (int i = kTile - 2; i >= 0; --i) dp[i] += a[i + 1] * dp[i + 1];
  }
  __syncthreads();
  // Four threads per row, each a quarter; the start of a quarter turns with the row, for the banks.
  const int i = thread / 4, quarter = thread % 4 * 16;
  T sum = 0;
  for (int k = 0; k < 16; ++k) sum += terms[i * kTile + quarter + (k + i) % 16];
  sum += __shfl_xor_sync(kAllLanes, sum, 1);
  sum += __shfl_xor_sync(kAllLanes, sum, 2);
  if (quarter == 0) da[i] = sum + dp[i] * (i > 0 ? p[i - 1] : T(1));
  __syncthreads();
}

#endif

}  // namespace strata
