// Tiles of attention: rows of queries against rows of keys. A block has kRowThreads x kKeyThreads
// threads; operands lie in shared memory as (rows, D) with a pack of padding, which spreads
// neighbouring rows over the banks, and are multiplied in true float32 or float64.
#pragma once

#include <cuda_pipeline.h>

#include <type_traits>

#include "core/ops/cuda/attend_args.cuh"

namespace strata {
namespace {

constexpr int kRowThreads = 8, kKeyThreads = 16;
constexpr int kTileThreads = kRowThreads * kKeyThreads;

// to (kRows, D) = the rows row_at(0), row_at(1), ...; where that is null, and behind dim, zero.
// Arrives with the next __pipeline_commit and wait.
template <class T, int kRows, int D, class RowAt>
__device__ __forceinline__ void load_tile(T* to, int dim, bool packs, const RowAt& row_at) {
  constexpr int N = kPack<T>, kCols = D / N;
  for (int i = threadIdx.x; i < kRows * kCols; i += kTileThreads) {
    const int r = i / kCols, c = i % kCols * N;
    const T* from = row_at(r);
    T* at = to + r * (D + N) + c;
    if (packs && from && c < dim) {
      __pipeline_memcpy_async(at, from + c, 16);
    } else {
#pragma unroll
      for (int e = 0; e < N; ++e) at[e] = from && c + e < dim ? from[c + e] : T(0);
    }
  }
}

// The keys or values of tile [j0, j0 + kRows), which lies in one page, as far as in [lo, hi): what
// lies outside may never have been written.
template <class T, int kRows, int D>
__device__ __forceinline__ void load_keys(T* to, const Attention<T>& a, const Rows<T>& rows, int j0,
                                          int lo, int hi) {
  const T* first = rows.at(j0);
  load_tile<T, kRows, D>(to, a.dim, a.packs, [&](int r) {
    return j0 + r >= lo && j0 + r < hi ? first + r * rows.pitch : nullptr;
  });
}

// s[i][j] = row (thread row * M + i) of x  .  row (thread column + 16 j) of z
template <class T, int D, int M, int N>
__device__ __forceinline__ void dot_rows(const T* x, const T* z, int dim, T (&s)[M][N]) {
  constexpr int P = kPack<T>;
  const T* xr = x + threadIdx.x / kKeyThreads * M * (D + P);
  const T* zr = z + threadIdx.x % kKeyThreads * (D + P);
#pragma unroll
  for (int i = 0; i < M; ++i)
#pragma unroll
    for (int j = 0; j < N; ++j) s[i][j] = T(0);
#pragma unroll 2
  for (int d = 0; d < dim; d += P) {
    Pack<T, P> xs[M], zs[N];
#pragma unroll
    for (int i = 0; i < M; ++i) xs[i] = load_pack<P>(xr + i * (D + P) + d);
#pragma unroll
    for (int j = 0; j < N; ++j) zs[j] = load_pack<P>(zr + j * kKeyThreads * (D + P) + d);
#pragma unroll
    for (int e = 0; e < P; ++e)
#pragma unroll
      for (int i = 0; i < M; ++i)
#pragma unroll
        for (int j = 0; j < N; ++j) s[i][j] += xs[i].v[e] * zs[j].v[e];
  }
}

// Columns of a (rows, D) product that a thread holds, as packs of kWidth that lie 16 packs apart.
template <class T, int D>
struct Columns {
  static constexpr int kCount = D / kKeyThreads;
  static constexpr int kWidth = kCount % kPack<T> == 0 ? kPack<T> : 1;
  static __device__ __forceinline__ int at(int i) {
    return (i / kWidth * kKeyThreads + int(threadIdx.x) % kKeyThreads) * kWidth + i % kWidth;
  }
  static __device__ __forceinline__ void load(const T* row, T (&to)[kCount]) {
#pragma unroll
    for (int i = 0; i < kCount; i += kWidth) {
      const Pack<T, kWidth> p = load_pack<kWidth>(row + at(i));
#pragma unroll
      for (int e = 0; e < kWidth; ++e) to[i + e] = p.v[e];
    }
  }
};

// o[i] += sum_j w (row thread row * M + i, j) * z (row j), for this thread's columns.
// w: (rows, kKeys) with a pack of padding, z: (kKeys, D)
template <class T, int D, int kKeys, int M, int C>
__device__ __forceinline__ void add_rows(const T* w, const T* z, T (&o)[M][C]) {
  constexpr int P = kPack<T>;
  const T* wr = w + threadIdx.x / kKeyThreads * M * (kKeys + P);
#pragma unroll 1
  for (int j = 0; j < kKeys; j += P) {
    Pack<T, P> ws[M];
#pragma unroll
    for (int i = 0; i < M; ++i) ws[i] = load_pack<P>(wr + i * (kKeys + P) + j);
#pragma unroll
    for (int e = 0; e < P; ++e) {
      T zs[C];
      Columns<T, D>::load(z + (j + e) * (D + P), zs);
#pragma unroll
      for (int i = 0; i < M; ++i)
#pragma unroll
        for (int c = 0; c < C; ++c) o[i][c] += ws[i].v[e] * zs[c];
    }
  }
}

// o[i] += sum_r w (r, key thread row * M + i) * z (row r), for this thread's columns.
template <class T, int D, int kKeys, int kRows, int M, int C>
__device__ __forceinline__ void add_columns(const T* w, const T* z, T (&o)[M][C]) {
  constexpr int P = kPack<T>, kWidth = M % P == 0 ? P : M;
  const T* wr = w + threadIdx.x / kKeyThreads * M;
#pragma unroll 2
  for (int r = 0; r < kRows; ++r) {
    T ws[M], zs[C];
#pragma unroll
    for (int i = 0; i < M; i += kWidth) {
      const Pack<T, kWidth> p = load_pack<kWidth>(wr + r * (kKeys + P) + i);
#pragma unroll
      for (int e = 0; e < kWidth; ++e) ws[i + e] = p.v[e];
    }
    Columns<T, D>::load(z + r * (D + P), zs);
#pragma unroll
    for (int i = 0; i < M; ++i)
#pragma unroll
      for (int c = 0; c < C; ++c) o[i][c] += ws[i] * zs[c];
  }
}

// Launches kernel<<<blocks, kTileThreads>>> with `elements` of T of shared memory.
template <class T, class... Args>
void launch_tiles(void (*kernel)(Args...), int64_t blocks, int elements, cudaStream_t stream,
                  Args... args) {
  const int bytes = elements * int(sizeof(T));
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
             "attend");
  if (blocks > 0) kernel<<<unsigned(blocks), kTileThreads, size_t(bytes), stream>>>(args...);
}

// Calls f with the least width that head_dim fits, as a constant.
template <class T, class F>
void with_width(int dim, const F& f) {
  if (dim <= 64) return f(std::integral_constant<int, 64>{});
  if constexpr (sizeof(T) == 4)
    if (dim <= 80) return f(std::integral_constant<int, 80>{});
  if (dim <= 128) return f(std::integral_constant<int, 128>{});
  if (dim <= 256) return f(std::integral_constant<int, 256>{});
  kernel_error("attend: head_dim must be at most 256 on CUDA, got %d", dim);
}

}  // namespace
}  // namespace strata
