// One tile of a matrix product on tensor cores, of two-byte numbers with sums in float32, for
// products whose sizes only the device knows. C = A B with A (m, k) and B (k, n); the m rows of A
// and the n columns of B are called lines. k is carried through shared memory, Tile::kDepth at a
// time, kStages - 1 steps ahead.
#pragma once

#include "core/kernels/mma.cuh"
#include "core/ops/cuda/gemm_tile.cuh"

namespace strata {
namespace {

// kWarpsM x kWarpsN warps, each with (16 kMi) x (16 kNj) elements of the tile; kBlocks: how many
// blocks share a multiprocessor.
template <int kWarpsM_, int kWarpsN_, int kMi_, int kNj_, int kStages_, int kBlocks_>
struct MmaTile {
  static constexpr int kWarpsM = kWarpsM_, kWarpsN = kWarpsN_, kMi = kMi_, kNj = kNj_;
  static constexpr int kStages = kStages_, kBlocks = kBlocks_, kDepth = 32;
  static constexpr int kTileThreads = kWarp * kWarpsM * kWarpsN;
  static constexpr int kHeight = 16 * kMi * kWarpsM, kWidth = 16 * kNj * kWarpsN;
  static constexpr int kBytesA = kHeight * kDepth * 2, kBytesB = kWidth * kDepth * 2;
  static constexpr int kShared = kStages * (kBytesA + kBytesB);
  // Neighbouring warps lie in different quarters of the multiprocessor: where the lower half of a
  // tile is empty, the upper half still has all of them.
  static __device__ __forceinline__ int warp_row() { return threadIdx.x / kWarp / kWarpsN; }
  static __device__ __forceinline__ int warp_col() { return threadIdx.x / kWarp % kWarpsN; }
};

// How kLines lines of a source lie in a stage: rows of kLines numbers, or of kDepth of them where k
// is contiguous, in chunks of 16 bytes. The chunks of a row are permuted so that the eight rows
// that ldmatrix reads at once lie in different banks.
template <class Source, int kLines, class Tile>
struct Staged {
  using T = typename Source::T;
  static constexpr bool kAlong = Source::kAlong;
  static constexpr int kChunk = 8;
  static constexpr int kAcross = (kAlong ? Tile::kDepth : kLines) / kChunk;
  static constexpr int kRows = kAlong ? kLines : Tile::kDepth;
  static constexpr int kDown = Tile::kTileThreads / kAcross;  // rows between chunks of a thread
  static constexpr int kSteps = (kRows + kDown - 1) / kDown;
  static constexpr int kRowBytes = kAcross * 16;
  static_assert(Tile::kTileThreads % kAcross == 0 && kDown % 8 == 0);

  static __device__ __forceinline__ int place(int row, int chunk) {
    return row * kRowBytes + (chunk ^ (kAlong ? row / 2 % 4 : row % 8)) * 16;
  }

  const T* from;        // where the next step's k begins, in this thread's column of chunks
  int offsets[kSteps];  // of its rows, in elements
  int64_t pitch;
  int left;    // lines from line0 on
  bool whole;  // 16 bytes can be copied everywhere

  // Lines past the last are copied from the first one: what comes of them is stored nowhere.
  __device__ __forceinline__ Staged(const Source& x, int64_t line0)
      : pitch(x.pitch), left(int(x.count - line0)) {
    const int row0 = threadIdx.x / kAcross, chunk = threadIdx.x % kAcross * kChunk;
    from = x.data + (kAlong ? line0 * pitch + chunk : line0 + chunk);
    whole = x.wide && (kAlong || left >= kLines);
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const int row = row0 + step * kDown;
      offsets[step] = kAlong && row >= left ? 0 : row * int(pitch);
    }
  }

  // Begins to copy the next kDepth of k, of which `depth` exist; the rest becomes zero.
  __device__ __forceinline__ void copy(char* stage, int depth) {
    const int row0 = threadIdx.x / kAcross, chunk = threadIdx.x % kAcross;
    char* to = stage + place(row0, chunk);  // kDown rows on, the permutation is the same
    if (whole && depth >= Tile::kDepth) {
#pragma unroll
      for (int step = 0; step < kSteps; ++step)
        if (kRows % kDown == 0 || row0 + step * kDown < kRows)
          copy_async(to + step * kDown * kRowBytes, from + offsets[step]);
    } else {
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        const int row = row0 + step * kDown;
        if (kRows % kDown && row >= kRows) continue;
        int n = (kAlong ? depth : left) - chunk * kChunk;
        if (!kAlong && row >= depth) n = 0;
        Pack<T, kChunk> p = {};
#pragma unroll
        for (int i = 0; i < kChunk; ++i)
          if (i < n) p[i] = from[offsets[step] + i];
        store_pack(reinterpret_cast<T*>(to + step * kDown * kRowBytes), p);
      }
    }
    from += kAlong ? Tile::kDepth : Tile::kDepth * pitch;
  }
};

// Reads tiles a or b of 16 lines and 16 of k from a stage.
template <class Layout, bool kLeft>
struct Fragments {
  uint32_t at[2];  // shared address for k = 0 and k = 16, of the warp's first line

  __device__ __forceinline__ explicit Fragments(const char* stage, int line) {
    const int lane = threadIdx.x % kWarp;
    const int low = lane % 8, odd = lane / 8 % 2, high = lane / 16;
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      int row, chunk;
      if constexpr (Layout::kAlong) {
        row = line + (kLeft ? odd : high) * 8 + low;
        chunk = 2 * k + (kLeft ? high : odd);
      } else {
        row = 16 * k + (kLeft ? high : odd) * 8 + low;
        chunk = line / 8 + (kLeft ? odd : high);
      }
      at[k] = shared_address(stage) + Layout::place(row, chunk);
    }
  }
  // The i-th 16 lines of the warp, whose first line is a multiple of 64 unless i is 0.
  __device__ __forceinline__ void read(uint32_t (&r)[4], int i, int k, int stage_offset) const {
    if constexpr (Layout::kAlong)
      load_matrix(r, at[k] + stage_offset + i * 16 * Layout::kRowBytes);
    else
      load_matrix_transposed(r, (at[k] + stage_offset) ^ (i * 32));
  }
};

// sum (16 kMi, 16 kNj) of each warp: lines m0 + of a times lines n0 + of b, over k < depth.
// `shared` has Tile::kShared bytes on a multiple of 128.
template <class Tile, class A, class B>
__device__ __forceinline__ void mma_product(const A& a, const B& b, int64_t m0, int64_t n0,
                                            int depth, char* shared,
                                            float (&sum)[Tile::kMi][2 * Tile::kNj][4]) {
  using T = typename A::T;
  using LayoutA = Staged<A, Tile::kHeight, Tile>;
  using LayoutB = Staged<B, Tile::kWidth, Tile>;
  constexpr int kStages = Tile::kStages, kDepth = Tile::kDepth;
  char* shared_b = shared + kStages * Tile::kBytesA;
  const int row = Tile::warp_row() * 16 * Tile::kMi, col = Tile::warp_col() * 16 * Tile::kNj;
  const bool active = m0 + row < a.count && n0 + col < b.count;
  LayoutA from_a(a, m0);
  LayoutB from_b(b, n0);
  const Fragments<LayoutA, true> left(shared, row);
  const Fragments<LayoutB, false> right(shared_b, col);
#pragma unroll
  for (int i = 0; i < Tile::kMi; ++i)
#pragma unroll
    for (int j = 0; j < 2 * Tile::kNj; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) sum[i][j][e] = 0;

  int copied = 0;  // k that copies have been begun for
  const auto copy = [&](int stage) {
    if (copied < depth) {
      from_a.copy(shared + stage * Tile::kBytesA, depth - copied);
      from_b.copy(shared_b + stage * Tile::kBytesB, depth - copied);
    }
    copied += kDepth;
    commit_copies();
  };
  uint32_t x[2][Tile::kMi][4], y[2][Tile::kNj][4];
  const auto read = [&](int stage, int k) {
#pragma unroll
    for (int i = 0; i < Tile::kMi; ++i) left.read(x[k][i], i, k, stage * Tile::kBytesA);
#pragma unroll
    for (int j = 0; j < Tile::kNj; ++j) right.read(y[k][j], j, k, stage * Tile::kBytesB);
  };
  const auto multiply = [&](int k) {
#pragma unroll
    for (int i = 0; i < Tile::kMi; ++i)
#pragma unroll
      for (int j = 0; j < Tile::kNj; ++j) {
        mma<T>(sum[i][2 * j], x[k][i], y[k][j][0], y[k][j][1]);
        mma<T>(sum[i][2 * j + 1], x[k][i], y[k][j][2], y[k][j][3]);
      }
  };

  __syncthreads();  // the tile before has read its stages
#pragma unroll 1
  for (int s = 0; s < kStages - 1; ++s) copy(s);
  wait_copies<kStages - 2>();
  __syncthreads();
  if (active) read(0, 0);
  int stage = 0;
  for (int k0 = 0; k0 < depth; k0 += kDepth) {
    const int next = stage + 1 < kStages ? stage + 1 : 0;
    copy(stage > 0 ? stage - 1 : kStages - 1);  // read by all before the barrier of the last step
    if (active) {
      read(stage, 1);
      multiply(0);
    }
    wait_copies<kStages - 2>();
    __syncthreads();
    if (active) {
      read(next, 0);
      multiply(1);
    }
    stage = next;
  }
  wait_copies<0>();
}

// f(row, column, pairs) for the rows of which this thread holds pairs of neighbouring columns; the
// pairs begin at `column` and are eight columns apart.
template <class Tile, class F>
__device__ __forceinline__ void each_row(const float (&sum)[Tile::kMi][2 * Tile::kNj][4],
                                         const F& f) {
  const int lane = threadIdx.x % kWarp;
  const int row = Tile::warp_row() * 16 * Tile::kMi + lane / 4;
  const int col = Tile::warp_col() * 16 * Tile::kNj + lane % 4 * 2;
#pragma unroll
  for (int i = 0; i < Tile::kMi; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      Pack<float, 2> pairs[2 * Tile::kNj];
#pragma unroll
      for (int j = 0; j < 2 * Tile::kNj; ++j)
        pairs[j] = {sum[i][j][2 * half], sum[i][j][2 * half + 1]};
      f(row + 16 * i + 8 * half, col, pairs);
    }
}

// y = or += pairs, as each_row gives them, where `cols` columns exist. paired: two neighbours of y
// can be stored at once; then all old numbers are under way before the first is used.
template <class Y, int kPairs>
__device__ __forceinline__ void put_row(Y* y, int col, int64_t cols,
                                        Pack<float, 2> (&pairs)[kPairs], bool paired,
                                        bool accumulate) {
  if (paired && col + 8 * (kPairs - 1) + 1 < cols) {
    if (accumulate) {
      Pack<Y, 2> old[kPairs];
#pragma unroll
      for (int j = 0; j < kPairs; ++j) old[j] = load_pack<2>(y + col + 8 * j);
#pragma unroll
      for (int j = 0; j < kPairs; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) pairs[j][e] += wide(old[j][e]);
    }
#pragma unroll
    for (int j = 0; j < kPairs; ++j) store_pack(y + col + 8 * j, narrow<Y>(pairs[j]));
    return;
  }
#pragma unroll
  for (int j = 0; j < kPairs; ++j)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int c = col + 8 * j + e;
      if (c < cols) put_accum<Y, 1>(y + c, {pairs[j][e]}, accumulate);
    }
}

}  // namespace
}  // namespace strata
