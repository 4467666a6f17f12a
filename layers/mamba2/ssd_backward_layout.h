// How the backward of the scan on two-byte numbers is cut into blocks, and its workspace into
// arrays: shared by the op, which sizes the workspace, and the CUDA kernels.
#pragma once

#include "layers/mamba2/ssd_layout_cuda.h"

namespace strata::mamba2 {

// Shapes that the matrix unit takes run on it, padded to its tiles; the others, and neg_eig, whose
// decays have no logarithm, run as float32 on converted copies.
struct SsdBackwardSizes {
  int64_t batch, seq_len, heads, groups, heads_per_group, dim, states, chunks;
  int64_t tile_dim, tile_states;  // dim and states padded; 0: convert to float32
  int64_t slices, slice_heads;    // blocks that share the heads of one group and chunk

  static constexpr int64_t kChunk = 64;
  static constexpr int64_t kPlaces = 264;  // blocks that fill a large device once

  STRATA_INLINE explicit SsdBackwardSizes(const SsdScanArgs& a) {
    const SsdScanOptions& o = a.options;
    batch = a.x.shape[0], seq_len = a.x.shape[1];
    heads = o.n_heads, groups = o.n_groups, heads_per_group = heads / groups;
    dim = o.head_dim, states = o.d_state;
    chunks = (seq_len + kChunk - 1) / kChunk;
    const bool fits = dim <= 128 && states <= 128 && !o.neg_eig;
    tile_dim = !fits ? 0 : dim <= 64 ? 64 : dim <= 80 ? 80 : 128;
    tile_states = !fits ? 0 : states <= 64 ? 64 : 128;
    const int64_t blocks = batch * chunks * groups, room = blocks < kPlaces ? kPlaces / blocks : 1;
    const int64_t want = room < heads_per_group ? room : heads_per_group;
    slice_heads = (heads_per_group + want - 1) / want;
    slices = (heads_per_group + slice_heads - 1) / slice_heads;
  }
};

// Q = 64 tokens of a chunk; P, N = tile_dim, tile_states.
struct SsdBackwardWorkspace {
  float *dt, *decay;         // (batch, chunks, heads, Q): step size; log2(a_1 ... a_i)
  float *dlog, *ddt;         // (batch, chunks, heads, Q): see step_gradients_kernel
  uint16_t *state, *dstate;  // (batch, chunks, heads, N P) bf16: at chunk starts; at chunk ends
  float* sums;               // (3, batch, chunks, heads): dA_log, dD, ddt_bias
  float *db, *dc;            // (slices, batch * seq_len, groups * d_state), if there are several
  float *x32, *dy32, *dx32;  // float32 copies: as x
  float *dt32, *ddt32;       // as dt
  float *b32, *c32, *db32, *dc32;  // as b
  char* scan32;                    // the workspace of the float32 scan
  int64_t scan32_bytes, bytes;

  STRATA_INLINE SsdBackwardWorkspace(const SsdScanArgs& args, char* base) {
    const SsdBackwardSizes s(args);
    SsdCarver carve{base};
    dt = decay = dlog = ddt = sums = db = dc = nullptr;
    state = dstate = nullptr;
    x32 = dy32 = dx32 = dt32 = ddt32 = b32 = c32 = db32 = dc32 = nullptr;
    scan32 = nullptr, scan32_bytes = 0;
    const int64_t tokens = s.batch * s.seq_len, pairs = s.batch * s.chunks * s.heads;
    const int64_t width = s.groups * s.states;
    if (s.tile_dim) {
      const int64_t steps = pairs * SsdBackwardSizes::kChunk;
      dt = carve.take<float>(steps), decay = carve.take<float>(steps);
      dlog = carve.take<float>(steps), ddt = carve.take<float>(steps);
      state = carve.take<uint16_t>(pairs * s.tile_dim * s.tile_states);
      dstate = carve.take<uint16_t>(pairs * s.tile_dim * s.tile_states);
      sums = carve.take<float>(3 * pairs);
      if (s.slices > 1) {
        db = carve.take<float>(s.slices * tokens * width);
        dc = carve.take<float>(s.slices * tokens * width);
      }
    } else {
      const int64_t inner = s.heads * s.dim;
      x32 = carve.take<float>(tokens * inner), dy32 = carve.take<float>(tokens * inner);
      dx32 = carve.take<float>(tokens * inner);
      dt32 = carve.take<float>(tokens * s.heads), ddt32 = carve.take<float>(tokens * s.heads);
      b32 = carve.take<float>(tokens * width), c32 = carve.take<float>(tokens * width);
      db32 = carve.take<float>(tokens * width), dc32 = carve.take<float>(tokens * width);
      scan32_bytes = SsdCudaWorkspace<float>(args, true, nullptr).bytes;
      scan32 = carve.take<char>(scan32_bytes);
    }
    bytes = carve.used;
  }
};

}  // namespace strata::mamba2
