// How the CUDA kernels of attend divide their workspace.
#pragma once

#include "core/ops/attend.h"

namespace strata {

// A one-token step cuts the keys of a sequence into splits, so that small batches fill the card.
constexpr int64_t kStepBlocks = 1024;  // blocks of a step, about
constexpr int64_t kMaxStepSplits = 256;

// Bytes of each part, all whole multiples of 64.
struct AttendWorkspaceCuda {
  int64_t documents;  // (2, batch, kv_len) i32: first and last position of each token's document
  int64_t delta;      // (batch, q_len, n_heads): sum of dy * y
  int64_t splits;     // of the keys of a sequence in a one-token step, at most
  int64_t partial;    // (batch, n_heads, splits, head_dim + 2): sums, maximum, divisor of a split

  STRATA_INLINE AttendWorkspaceCuda(const AttendArgs& a, int64_t element) {
    const AttendOptions& o = a.options;
    const int64_t batch = a.q.shape[0], q_len = a.q.shape[1], kv_len = a.k ? a.k.shape[1] : 0;
    documents = a.seq_idx ? round_up_64(2 * batch * kv_len * 4) : 0;
    delta = round_up_64(batch * q_len * o.n_heads * element);
    const int64_t even = batch > 0 ? kStepBlocks / (batch * o.n_kv_heads) : 1;
    splits = even < 1 ? 1 : even > kMaxStepSplits ? kMaxStepSplits : even;
    partial = round_up_64(batch * o.n_heads * splits * (o.head_dim + 2) * element);
  }
  STRATA_INLINE static int64_t round_up_64(int64_t bytes) { return (bytes + 63) / 64 * 64; }

  // Of one call: the backward, a forward over tensors, or (without a.k) one over pages.
  STRATA_INLINE int64_t bytes(const AttendArgs& a, bool backward) const {
    if (backward) return documents + delta;
    return a.k || a.q.shape[1] > 1 ? documents : partial;
  }
};

}  // namespace strata
