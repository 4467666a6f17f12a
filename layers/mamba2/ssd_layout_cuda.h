// How the CUDA kernels of the scan cut it into chunks, and their workspace into arrays: shared by
// the op, which sizes the workspace, and the kernels.
#pragma once

#include "layers/mamba2/ssd_layout.h"

namespace strata::mamba2 {

// Chunks of 64 tokens whatever chunk_size says (it changes the result by rounding only): a tile of
// the kernels. The forward walks the sequence in segments of `segment` chunks, so that its
// workspace does not grow with long inputs; the backward takes all chunks at once.
struct SsdCudaSizes {
  int64_t batch, seq_len, heads, groups, heads_per_group, dim, states, chunks, segment;

  static constexpr int64_t kChunk = 64;
  static constexpr int64_t kSegmentPairs = 4096;  // (sequence, chunk, head) that fill a device

  STRATA_INLINE SsdCudaSizes(const SsdScanArgs& a, bool backward) {
    const SsdScanOptions& o = a.options;
    batch = a.x.shape[0], seq_len = a.x.shape[1];
    heads = o.n_heads, groups = o.n_groups, heads_per_group = heads / groups;
    dim = o.head_dim, states = o.d_state;
    chunks = (seq_len + kChunk - 1) / kChunk;
    const int64_t fill = kSegmentPairs / (batch * heads), want = fill < 16 ? 16 : fill;
    segment = backward || chunks < want ? chunks : want;
  }
};

// Arrays over (batch, segment, heads) hold one entry per chunk of a head; Q = 64, P = head_dim,
// N = d_state.
template <class T>
struct SsdCudaWorkspace {
  T *dt, *a;         // (batch, segment, heads, Q)
  T *decay, *tail;   // (batch, segment, heads, Q): a_1 ... a_i; dt_j a_{j+1} ... a_Q
  T* g;              // (batch, segment, groups, Q, Q): C B^T
  T* states;         // (batch, segment, heads, P, N): at chunk starts
  T* running;        // (batch, heads, P, N): between segments, if there are several
  T *slope, *open;   // backward, (batch, chunks, heads, Q): da/d(dt), d(dt)/d(dt_raw)
  T* dstates;        // backward, (batch, chunks, heads, P, N): at chunk ends
  T *dg_heads, *dg;  // backward, (batch, chunks, heads, Q, Q) and summed over each group
  T* sums;           // backward, (3, batch, chunks, heads): dA_log, dD, ddt_bias
  int64_t bytes;

  STRATA_INLINE SsdCudaWorkspace(const SsdScanArgs& args, bool backward, char* base) {
    const SsdCudaSizes s(args, backward);
    const int64_t q = SsdCudaSizes::kChunk, places = s.batch * s.segment;
    const int64_t pairs = places * s.heads, state = s.dim * s.states;
    SsdCarver carve{base};
    dt = carve.take<T>(pairs * q), a = carve.take<T>(pairs * q);
    decay = carve.take<T>(pairs * q), tail = carve.take<T>(pairs * q);
    g = carve.take<T>(places * s.groups * q * q);
    states = carve.take<T>(pairs * state);
    running = slope = open = dstates = dg_heads = dg = sums = nullptr;
    if (s.segment < s.chunks) running = carve.take<T>(s.batch * s.heads * state);
    if (backward) {
      slope = carve.take<T>(pairs * q), open = carve.take<T>(pairs * q);
      dstates = carve.take<T>(pairs * state);
      dg_heads = carve.take<T>(pairs * q * q);
      dg = s.heads_per_group > 1 ? carve.take<T>(places * s.groups * q * q) : dg_heads;
      sums = carve.take<T>(3 * pairs);
    }
    bytes = carve.used;
  }
};

}  // namespace strata::mamba2
