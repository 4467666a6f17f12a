// How the CPU kernels of attend divide their workspace. The same numbers for every instruction set.
#pragma once

#include "core/ops/attend.h"

namespace strata {

constexpr int64_t kAttendKeyChunk = 512;     // keys per task of the backward when tasks are few
constexpr int64_t kAttendSplitTokens = 128;  // least keys per task of a one-token step

// head_dim rounded up to whole cache lines, in elements.
STRATA_INLINE int64_t padded_width(int64_t head_dim, int64_t element) {
  return (head_dim * element + 63) / 64 * 64 / element;
}

// Bytes of each part. `forward`, `backward` and `step` are per thread.
struct AttendWorkspace {
  int64_t documents;      // first and last position of each token's document
  int64_t forward;        // q^T, y^T, scores, maxima, sums
  int64_t backward_keys;  // keys whose dk, dv a task collects
  int64_t backward;
  int64_t splits;   // tasks per sequence of a one-token step, at most
  int64_t partial;  // (batch, splits, n_heads, width + 2): sums, maximum and divisor of a split
  int64_t step;     // packed queries and scores of a page

  STRATA_INLINE AttendWorkspace(const AttendArgs& a, int64_t element) {
    const AttendOptions& o = a.options;
    const int64_t batch = a.q.shape[0], kv_len = a.k ? a.k.shape[1] : 0;
    const int64_t tile = kPageTokens, width = padded_width(o.head_dim, element);
    documents = a.seq_idx ? (2 * batch * kv_len * 4 + 63) / 64 * 64 : 0;
    forward = (3 * o.head_dim * tile + tile * tile + 2 * tile) * element;
    const int64_t heads = batch * o.n_kv_heads;
    const bool together =
        kv_len <= kAttendKeyChunk || heads >= 4 * a.threads || heads % a.threads == 0;
    backward_keys = together ? kv_len : kAttendKeyChunk;
    backward = (5 * o.head_dim * tile + 2 * tile * width + 2 * tile * tile + 2 * tile +
                2 * backward_keys * width) *
               element;
    splits = batch < 64 ? 64 / batch : 1;
    partial = (batch * splits * o.n_heads * (width + 2) * element + 63) / 64 * 64;
    step = o.n_heads * (width + tile) * element;
  }
};

}  // namespace strata
