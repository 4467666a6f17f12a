// One tile of a matrix product by a block of 256 threads, in true float32 or float64, for products
// whose sizes only the device knows. C (+)= A B with A (m, k) and B (k, n); the m rows of A and the
// n columns of B are called lines.
#pragma once

#include "core/ops/cuda/elementwise.cuh"

namespace strata {
namespace {

// A thread holds kM x kN elements of the tile, kDepth is what shared memory holds of k.
template <class Element, int kM, int kN, int kDepth_>
struct TileShape {
  using T = Element;
  static constexpr int kRows = kM, kCols = kN, kDepth = kDepth_;
  static constexpr int kHeight = 16 * kM, kWidth = 16 * kN;
};

template <class T>
using LargeTile = TileShape<T, sizeof(T) == 4 ? 8 : 4, sizeof(T) == 4 ? 8 : 4, 8>;
template <class T>
using FlatTile = TileShape<T, 1, sizeof(T) == 4 ? 8 : 4, 16>;  // when there are few rows

// kAlong: element (line, k) lies at data[line * pitch + k], else at data[k * pitch + line].
template <class Element, bool kAlong_>
struct Lines {
  using T = Element;
  static constexpr bool kAlong = kAlong_;
  const T* data;
  int64_t pitch, count;
  bool wide;  // rows start at multiples of 16 bytes
};

// Carries kLines lines and kDepth of k from global through registers to shared memory, [k][line].
template <class Source, int kLines, int kDepth>
struct Carrier {
  using T = typename Source::T;
  static constexpr int V = kPack<T>, kPacks = kLines * kDepth / V;
  static constexpr int kSteps = (kPacks + kThreads - 1) / kThreads;
  static constexpr int kStride = kLines + V;  // spreads transposed stores over the banks
  Pack<T, V> held[kSteps];

  static __device__ __forceinline__ int line_of(int pack) {
    return Source::kAlong ? pack / (kDepth / V) : pack % (kLines / V) * V;
  }
  static __device__ __forceinline__ int k_of(int pack) {
    return Source::kAlong ? pack % (kDepth / V) * V : pack / (kLines / V);
  }

  // What lies outside of `count` lines or `depth` is zero.
  __device__ __forceinline__ void take(const Source& x, int64_t line0, int64_t k0, int64_t depth) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const int pack = threadIdx.x + step * kThreads;
      held[step] = {};
      if (pack >= kPacks) continue;
      const int64_t line = line0 + line_of(pack), k = k0 + k_of(pack);
      if (line >= x.count || k >= depth) continue;
      const T* p = x.data + (Source::kAlong ? line * x.pitch + k : k * x.pitch + line);
      const int64_t left = Source::kAlong ? depth - k : x.count - line;
      if (x.wide && left >= V) {
        held[step] = load_pack<V>(p);
      } else {
#pragma unroll
        for (int i = 0; i < V; ++i)
          if (i < left) held[step][i] = p[i];
      }
    }
  }

  __device__ __forceinline__ void place(T (*shared)[kStride]) const {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const int pack = threadIdx.x + step * kThreads;
      if (pack >= kPacks) continue;
      T* at = &shared[k_of(pack)][line_of(pack)];
      if constexpr (Source::kAlong) {
#pragma unroll
        for (int i = 0; i < V; ++i) at[i * kStride] = held[step][i];
      } else {
        store_pack(at, held[step]);
      }
    }
  }
};

// The line of a thread's i-th element, in packs: neighbouring threads read neighbouring packs.
template <int kPer, int V>
__device__ __forceinline__ int line_of_element(int thread, int i) {
  constexpr int P = kPer < V ? kPer : V;
  return i / P * (16 * P) + thread * P + i % P;
}

// Lines m0.. of a and n0.. of b, over k < depth. c: (a.count, b.count), rows pitch_c apart.
template <class Tile, class A, class B>
__device__ __forceinline__ void tile_product(const A& a, const B& b, int64_t m0, int64_t n0,
                                             int64_t depth, typename Tile::T* c, int64_t pitch_c,
                                             bool wide_c, bool accumulate) {
  using T = typename Tile::T;
  constexpr int V = kPack<T>, M = Tile::kRows, N = Tile::kCols, K = Tile::kDepth;
  using CarryA = Carrier<A, Tile::kHeight, K>;
  using CarryB = Carrier<B, Tile::kWidth, K>;
  __shared__ alignas(16) T as[2][K][CarryA::kStride];
  __shared__ alignas(16) T bs[2][K][CarryB::kStride];
  // A warp is 4 x 8 threads of the 16 x 16.
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int ty = warp / 2 * 4 + lane / 8, tx = warp % 2 * 8 + lane % 8;

  T sum[M][N] = {};
  CarryA carry_a;
  CarryB carry_b;
  carry_a.take(a, m0, 0, depth);
  carry_b.take(b, n0, 0, depth);
  carry_a.place(as[0]);
  carry_b.place(bs[0]);
  __syncthreads();
  int at = 0;
  for (int64_t k0 = 0; k0 < depth; k0 += K) {
    const bool more = k0 + K < depth;
    if (more) {
      carry_a.take(a, m0, k0 + K, depth);
      carry_b.take(b, n0, k0 + K, depth);
    }
#pragma unroll
    for (int k = 0; k < K; ++k) {
      T x[M], y[N];
      constexpr int PM = M < V ? M : V;
#pragma unroll
      for (int i = 0; i < M; i += PM) {
        const Pack<T, PM> p = load_pack<PM>(&as[at][k][line_of_element<M, V>(ty, i)]);
#pragma unroll
        for (int v = 0; v < PM; ++v) x[i + v] = p[v];
      }
#pragma unroll
      for (int j = 0; j < N; j += V) {
        const Pack<T, V> p = load_pack<V>(&bs[at][k][line_of_element<N, V>(tx, j)]);
#pragma unroll
        for (int v = 0; v < V; ++v) y[j + v] = p[v];
      }
#pragma unroll
      for (int i = 0; i < M; ++i)
#pragma unroll
        for (int j = 0; j < N; ++j) sum[i][j] += x[i] * y[j];
    }
    if (more) {
      carry_a.place(as[at ^ 1]);
      carry_b.place(bs[at ^ 1]);
    }
    __syncthreads();
    at ^= 1;
  }

#pragma unroll
  for (int i = 0; i < M; ++i) {
    const int64_t m = m0 + line_of_element<M, V>(ty, i);
    if (m >= a.count) continue;
#pragma unroll
    for (int j = 0; j < N; j += V) {
      const int64_t n = n0 + line_of_element<N, V>(tx, j);
      T* target = c + m * pitch_c + n;
      if (wide_c && n + V <= b.count) {
        Pack<T, V> p = {};
        if (accumulate) p = load_pack<V>(target);
#pragma unroll
        for (int v = 0; v < V; ++v) p[v] += sum[i][j + v];
        store_pack(target, p);
      } else {
#pragma unroll
        for (int v = 0; v < V; ++v)
          if (n + v < b.count) put(target + v, sum[i][j + v], accumulate);
      }
    }
  }
}

}  // namespace
}  // namespace strata
