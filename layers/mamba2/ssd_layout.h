// How the scan is cut into tasks and its workspace into arrays: shared by the op, which sizes the
// workspace, and the kernels, which walk it. For kernel files too, so everything is inlined.
#pragma once

#include "layers/mamba2/ssd_scan.h"

namespace strata::mamba2 {

// One task: a block of heads of one group of one sequence, over all chunks. The cut depends on
// shapes alone.
struct SsdTasks {
  int64_t batch, seq_len, heads_per_group, blocks, block_heads, chunk, chunks;

  STRATA_INLINE explicit SsdTasks(const SsdScanArgs& a) {
    const SsdScanOptions& o = a.options;
    batch = a.x.shape[0], seq_len = a.x.shape[1];
    heads_per_group = o.n_heads / o.n_groups;
    // About eight tasks, so that a few threads have work; more heads in one task share more.
    const int64_t want = batch * o.n_groups >= 8 ? 1 : 8 / (batch * o.n_groups);
    const int64_t limit = want < heads_per_group ? want : heads_per_group;
    block_heads = (heads_per_group + limit - 1) / limit;
    blocks = (heads_per_group + block_heads - 1) / block_heads;
    chunk = o.chunk_size < 16 ? 16 : o.chunk_size > 128 ? 128 : (o.chunk_size + 15) / 16 * 16;
    if (chunk > (seq_len + 15) / 16 * 16) chunk = (seq_len + 15) / 16 * 16;
    chunks = (seq_len + chunk - 1) / chunk;
  }
  STRATA_INLINE int64_t count(const SsdScanOptions& o) const { return batch * o.n_groups * blocks; }
};

// Hands out pieces of a workspace, 64 bytes aligned; with a null base it only counts.
struct SsdCarver {
  char* base;
  int64_t used = 0;
  template <class T>
  STRATA_INLINE T* take(int64_t count) {
    T* p = reinterpret_cast<T*>(base + used);
    used += (count * int64_t(sizeof(T)) + 63) / 64 * 64;
    return p;
  }
};

// What one thread needs for one chunk of one task. Q = chunk, P = head_dim, N = d_state.
template <class T>
struct SsdChunkBuffers {
  T *dt, *a, *slope, *open;  // (block_heads, Q): see coefficients()
  T *g, *w, *row, *decay;    // (Q, Q): C B^T; (Q, Q): G o M; (Q): a row of M; (Q): p
  T* xw;                     // (Q, P)
  T *m, *dw, *dg;            // backward, (Q, Q) each
  T *z, *dx, *v, *db, *dc;   // backward: (Q, P), (Q, P), (Q, N), (Q, N), (Q, N)
  T *u, *e, *da, *ddt, *dp;  // backward, (Q) each

  STRATA_INLINE SsdChunkBuffers(SsdCarver& carve, const SsdScanOptions& o, const SsdTasks& tasks,
                                bool backward) {
    const int64_t q = tasks.chunk, p = o.head_dim, n = o.d_state, nh = tasks.block_heads;
    dt = carve.take<T>(nh * q), a = carve.take<T>(nh * q);
    slope = carve.take<T>(nh * q), open = carve.take<T>(nh * q);
    g = carve.take<T>(q * q), w = carve.take<T>(q * q);
    row = carve.take<T>(q), decay = carve.take<T>(q);
    xw = carve.take<T>(q * p);
    m = dw = dg = z = dx = v = db = dc = u = e = da = ddt = dp = nullptr;
    if (!backward) return;
    m = carve.take<T>(q * q), dw = carve.take<T>(q * q), dg = carve.take<T>(q * q);
    z = carve.take<T>(q * p), dx = carve.take<T>(q * p);
    v = carve.take<T>(q * n), db = carve.take<T>(q * n), dc = carve.take<T>(q * n);
    u = carve.take<T>(q), e = carve.take<T>(q), da = carve.take<T>(q);
    ddt = carve.take<T>(q), dp = carve.take<T>(q);
  }
};

template <class T>
struct SsdWorkspace {
  char* per_thread;
  int64_t thread_bytes;
  T* states;   // forward: (batch, n_heads, P, N), running; backward: (chunks, batch, ...)
  T* dstates;  // backward: (batch, n_heads, P, N)
  T* sums;     // backward: (3, batch, n_heads): dA_log, dD, ddt_bias
  T *db, *dc;  // backward, with several blocks per group: (blocks, batch * seq_len, G * N)
  int64_t bytes;

  STRATA_INLINE SsdWorkspace(const SsdScanArgs& a, bool backward, char* base) {
    const SsdScanOptions& o = a.options;
    const SsdTasks tasks(a);
    SsdCarver sizes{nullptr};
    const SsdChunkBuffers<T> unused(sizes, o, tasks, backward);
    (void)unused;
    thread_bytes = sizes.used;
    SsdCarver carve{base};
    per_thread = carve.take<char>(thread_bytes * a.threads);
    const int64_t state = tasks.batch * o.n_heads * o.head_dim * o.d_state;
    states = carve.take<T>(state * (backward ? tasks.chunks : 1));
    dstates = sums = db = dc = nullptr;
    if (backward) {
      dstates = carve.take<T>(state);
      sums = carve.take<T>(3 * tasks.batch * o.n_heads);
      if (tasks.blocks > 1) {
        const int64_t rows = tasks.blocks * tasks.batch * tasks.seq_len;
        db = carve.take<T>(rows * o.n_groups * o.d_state);
        dc = carve.take<T>(rows * o.n_groups * o.d_state);
      }
    }
    bytes = carve.used;
  }
};

}  // namespace strata::mamba2
