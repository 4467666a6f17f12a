// How the CUDA kernels of attend divide their workspace.
#pragma once

#include "core/ops/attend.h"

namespace strata {

// Few queries against pages cut the keys of a sequence into splits, so that small batches fill the
// card.
constexpr int64_t kStepBlocks = 1024;  // blocks of a one-token step, about
constexpr int64_t kMaxStepSplits = 256;
// The same for bf16 and f16: blocks that run at a time, of a step, of tiles of several tokens, and
// of tiles of one head's queries (attend_hopper.cu).
constexpr int64_t kHalfStepSlots = 396, kHalfTileSlots = 264, kHeadTileSlots = 132;
constexpr int64_t kHeadTileQueries = 128;

// Query rows of a tile of the bf16 and f16 forward: (queries, query heads of a key-value head); and
// of a step.
constexpr int64_t half_tile_rows(int64_t head_dim) { return head_dim <= 128 ? 128 : 64; }
constexpr int64_t kHalfStepRows = 16;

// The least number of splits of each of `blocks` blocks that keeps nine tenths of `slots` busy.
STRATA_INLINE int64_t even_splits(int64_t blocks, int64_t slots) {
  int64_t splits = 1;
  if (blocks < 1 || blocks > 2 * slots) return splits;
  while (splits < kMaxStepSplits) {
    const int64_t rounds = (blocks * splits + slots - 1) / slots;
    if (10 * blocks * splits >= 9 * rounds * slots) break;
    ++splits;
  }
  return splits;
}

// Bytes of each part, all whole multiples of 64.
struct AttendWorkspaceCuda {
  int64_t documents;  // (2, batch, kv_len) i32: first and last position of each token's document
  int64_t padded_queries;  // q_len in whole tiles, for bf16 and f16
  int64_t delta;   // (batch, q_len, n_heads): sum of dy * y; for bf16 and f16 (2, batch, n_heads,
                   // padded_queries) f32: log-sum-exp, delta
  int64_t splits;  // of the keys of a sequence with few queries, at most
  int64_t head_splits;    // the same for tiles of one head's queries
  int64_t partial_pitch;  // elements of a split's sums of one query and head
  int64_t partial;        // (batch, q_len, n_heads, splits, partial_pitch): sums, maximum, divisor

  STRATA_INLINE AttendWorkspaceCuda(const AttendArgs& a, int64_t element) {
    const AttendOptions& o = a.options;
    const bool half = element == 2;
    const int64_t batch = a.q.shape[0], q_len = a.q.shape[1], kv_len = a.k ? a.k.shape[1] : 0;
    const int64_t sum = half ? 4 : element;  // bytes of a sum
    documents = a.seq_idx ? round_up_64(2 * batch * kv_len * 4) : 0;
    padded_queries = (q_len + 127) / 128 * 128;
    delta = round_up_64(half ? 2 * batch * o.n_heads * padded_queries * sum
                             : batch * q_len * o.n_heads * sum);
    const int64_t group = o.n_heads / o.n_kv_heads,
                  rows = q_len > 1 ? half_tile_rows(o.head_dim) : kHalfStepRows;
    const int64_t sequences = batch * o.n_kv_heads, tiles = (q_len * group + rows - 1) / rows;
    const int64_t even = kStepBlocks / (sequences > 0 ? sequences : 1);
    splits = even < 1 ? 1 : even > kMaxStepSplits ? kMaxStepSplits : even;
    if (half) splits = even_splits(sequences * tiles, q_len > 1 ? kHalfTileSlots : kHalfStepSlots);
    const int64_t head_tiles = (q_len + kHeadTileQueries - 1) / kHeadTileQueries;
    head_splits = half ? even_splits(batch * o.n_heads * head_tiles, kHeadTileSlots) : 1;
    partial_pitch = half ? (o.head_dim + 3) / 4 * 4 + 4 : o.head_dim + 2;
    const int64_t most = q_len > 1 && head_splits > splits ? head_splits : splits;
    partial = round_up_64(batch * q_len * o.n_heads * most * partial_pitch * sum);
  }
  STRATA_INLINE static int64_t round_up_64(int64_t bytes) { return (bytes + 63) / 64 * 64; }

  // Of one call: the backward, a forward over tensors, or (without a.k) one over pages.
  STRATA_INLINE int64_t bytes(const AttendArgs& a, bool backward) const {
    if (backward) return documents + delta;
    if (a.k) return documents;
    if (a.q.shape[1] == 1) return partial;
    return size_of(a.q.dtype) == 2 && (splits > 1 || head_splits > 1) ? partial : 0;
  }
};

}  // namespace strata
