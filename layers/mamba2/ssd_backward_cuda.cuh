// What the kernels of the backward on bf16 share: arguments, chunks, tiles in shared memory.
#pragma once

#include "core/kernels/mma.cuh"
#include "core/kernels/pack.cuh"
#include "layers/mamba2/ssd_backward_layout.h"

namespace strata::mamba2 {
namespace {

constexpr int kQ = int(SsdBackwardSizes::kChunk);  // tokens per chunk
constexpr float kLog2e = 1.4426950408889634f;
// log2 of a decay that counts as none: exp2_fast of a sum with it is zero. A document's first token
// has it, so that pairs of tokens from different documents vanish without a mask.
constexpr float kGone = -140.f;

// x, which the compiler cannot know: what is computed from it is computed where it is used, and not
// kept in registers from before a loop.
__device__ __forceinline__ int here(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

// Whether 16 bytes, or pairs of numbers, can be moved at once between rows of x.
struct Access {
  bool packs, pairs;
  Access(const Tensor& x, int64_t columns)
      : packs(packable(x) && columns % 8 == 0),
        pairs(!x || (rows_aligned(x, 4) && columns % 2 == 0)) {}
};

struct Back {
  SsdScanBackwardArgs args;
  SsdBackwardSizes s;
  SsdBackwardWorkspace w;
  Access x, dy, b, c, dx, db, dc;

  explicit Back(const SsdScanBackwardArgs& a)
      : args(a),
        s(a.forward),
        w(a.forward, a.forward.workspace.ptr<char>()),
        x(a.forward.x, s.dim),
        dy(a.dy, s.dim),
        b(a.forward.b, s.states),
        c(a.forward.c, s.states),
        dx(a.dx.grad, s.dim),
        db(a.db.grad, s.states),
        dc(a.dc.grad, s.states) {}

  __device__ __forceinline__ int tokens(int64_t chunk) const {
    const int64_t left = s.seq_len - chunk * kQ;
    return left < kQ ? int(left) : kQ;
  }
  // Entry of an array over (batch, chunks, heads).
  __device__ __forceinline__ int64_t pair(int64_t batch, int64_t chunk, int64_t head) const {
    return (batch * s.chunks + chunk) * s.heads + head;
  }
  __device__ __forceinline__ bf16* state(int64_t pair) const {
    return reinterpret_cast<bf16*>(w.state) + pair * s.tile_dim * s.tile_states;
  }
  __device__ __forceinline__ bf16* dstate(int64_t pair) const {
    return reinterpret_cast<bf16*>(w.dstate) + pair * s.tile_dim * s.tile_states;
  }
};

// Begins the copy of `rows` rows of `columns` numbers to a (Q, padded_row(kColumns)) tile; what is
// beyond them becomes zero. kTiled: to 8 x 8 tiles instead, (Q / 8, kColumns / 8) of them.
template <int kColumns, int kBlock, bool kTiled = false>
__device__ __forceinline__ void load_tile(bf16* to, const bf16* from, int64_t pitch, int rows,
                                          int columns, bool packs) {
  constexpr int kPacks = kColumns / 8, kPerRow = kBlock / kQ;  // threads of a row
  const int thread = here(threadIdx.x), row = thread / kPerRow, first = thread % kPerRow;
  const bf16* const source = from + (row < rows ? row : 0) * pitch;
  if (row >= rows) columns = 0;
  to += kTiled ? row / 8 * (kColumns * 8) + row % 8 * 8 : row * padded_row(kColumns);
  const int step = kTiled ? 8 : 1;
  if (packs) {
#pragma unroll
    for (int i = 0; i < kPacks; i += kPerRow) {
      const int column = (first + i) * 8;
      if (kPacks % kPerRow && column >= kColumns) continue;
      const bool inside = column < columns;
      copy_async(to + column * step, inside ? source + column : from, inside ? 16 : 0);
    }
    return;
  }
#pragma unroll 1
  for (int column = first * 8; column < kColumns; column += kPerRow * 8)
#pragma unroll 1
    for (int e = 0; e < 8; ++e)
      to[column * step + e] = column + e < columns ? source[column + e] : __float2bfloat16_rn(0.f);
}

// Begins the copy of kCount packed numbers, a multiple of 16 bytes.
template <int kCount, int kBlock, class T>
__device__ __forceinline__ void load_all(T* to, const T* from) {
  constexpr int kStep = kBlock * kPack<T>;
  const int e = here(threadIdx.x) * kPack<T>;
  to += e, from += e;
#pragma unroll
  for (int i = 0; i < kCount; i += kStep)
    if (i + kStep <= kCount || e < kCount - i) copy_async(to + i, from + i);
}

// States lie in global and shared memory as 8 x 8 tiles of 128 bytes, (N / 8, P / 8) of them, rows
// of a tile along N: what one instruction of a warp stores or ldmatrix loads is contiguous.
template <int P>
__device__ __forceinline__ int tile_offset(int n_tile, int p_tile) {
  return (n_tile * (P / 8) + p_tile) * 64;
}

// Two neighbouring numbers of a row to a gradient; `columns` counts those that exist from here.
__device__ __forceinline__ void put_pair(bf16* to, float low, float high, int columns, bool pairs,
                                         bool accumulate) {
  if (columns <= 0) return;
  if (pairs) {
    uint32_t* const word = reinterpret_cast<uint32_t*>(to);
    if (accumulate) {
      const float2 before = unpack2<bf16>(*word);
      low += before.x, high += before.y;
    }
    *word = pack2<bf16>(low, high);
    return;
  }
  to[0] = __float2bfloat16_rn(accumulate ? low + wide(to[0]) : low);
  if (columns > 1) to[1] = __float2bfloat16_rn(accumulate ? high + wide(to[1]) : high);
}

// Rows of kTiles accumulator tiles, narrowed: w[i] are this lane's two columns of tile i. Four
// tiles at a time are exchanged between the four lanes of a row, so that each stores 16 bytes of
// one tile. `to` is the row's place of the first tile, `columns` counts those that exist from
// there.
template <int kTiles>
__device__ __forceinline__ void store_row(bf16* to, uint32_t (&w)[kTiles], int columns) {
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int i = 0; i + 4 <= kTiles; i += 4) {
    const bool odd = t & 1, high = t & 2;
#pragma unroll
    for (int j = i; j < i + 4; j += 2) {
      const uint32_t got = __shfl_xor_sync(kAllLanes, odd ? w[j] : w[j + 1], 1);
      w[j] = odd ? got : w[j];
      w[j + 1] = odd ? w[j + 1] : got;
    }
    const uint32_t got0 = __shfl_xor_sync(kAllLanes, high ? w[i] : w[i + 2], 2);
    const uint32_t got1 = __shfl_xor_sync(kAllLanes, high ? w[i + 1] : w[i + 3], 2);
    const Pack<uint32_t, 4> out = high ? Pack<uint32_t, 4>{got0, got1, w[i + 2], w[i + 3]}
                                       : Pack<uint32_t, 4>{w[i], w[i + 1], got0, got1};
    if (8 * (i + t) < columns) store_pack(reinterpret_cast<uint32_t*>(to + 8 * (i + t)), out);
  }
#pragma unroll
  for (int i = kTiles / 4 * 4; i < kTiles; ++i)
    if (8 * i < columns) *reinterpret_cast<uint32_t*>(to + 8 * i + 2 * t) = w[i];
}

// a, the left operand of a product, with rows g and g + 8 scaled.
__device__ __forceinline__ void scale_rows(uint32_t (&a)[4], float low, float high) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 v = unpack2<bf16>(a[i]);
    const float f = i % 2 ? high : low;
    a[i] = pack2<bf16>(v.x * f, v.y * f);
  }
}

}  // namespace
}  // namespace strata::mamba2
