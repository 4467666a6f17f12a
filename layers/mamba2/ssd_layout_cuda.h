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

// The forward for bf16 and f16: how its blocks share the work. A block walks the chunks of one
// sequence in order for `block_heads` heads of one group, with their states in its registers: as
// warps with tiles of 16 rows (of head_dim) by padded_states, `tiles` to a head and tiles_per_warp
// to a warp, or, on devices with products of warpgroups, as warpgroups with a tile of 64 rows each.
// A head wider than a block is cut into `parts`. Where that leaves a device idle, the sequence is
// cut into segments: a first pass finds what each segment but the last adds to the state, the
// second starts every segment from there. The cut depends on shapes alone.
struct SsdMmaPlan {
  static constexpr int64_t kTileRows = 16, kMaxWarps = 8, kMaxStates = 256;
  static constexpr int64_t kMaxGroupWarps = 12, kGroupRows = 64;
  static constexpr int64_t kChunk = 32, kGroupChunk = 64;  // tokens
  static constexpr int64_t kMaxShared = 99 * 1024;         // bytes of a block on every device
  static constexpr int64_t kGroupStages = 3;               // chunks in shared memory
  static constexpr int64_t kMaxGroupShared = 227 * 1024;
  static constexpr int64_t kDevice = 132;  // multiprocessors that the cut aims at
  static constexpr int64_t kCoefficients = 5;

  int64_t batch, seq_len, heads, groups, heads_per_group, dim, states;
  bool warpgroups;
  int64_t chunk, padded_states, tiles_per_warp;
  int64_t block_heads, head_blocks, parts, tiles, warps;
  int64_t chunks, segments, segment_chunks;

  // Whether warpgroups can do it: whole tiles, 16-byte rows.
  STRATA_INLINE static bool fits_warpgroups(const SsdScanArgs& a) {
    const int64_t dim = a.options.head_dim, n = a.options.d_state;
    return dim % kTileRows == 0 && dim >= 32 && dim <= kMaxGroupWarps * kTileRows &&
           (n == 64 || n == 128);
  }

  STRATA_INLINE SsdMmaPlan(const SsdScanArgs& a, bool with_warpgroups) {
    const SsdScanOptions& o = a.options;
    batch = a.x.shape[0], seq_len = a.x.shape[1];
    heads = o.n_heads, groups = o.n_groups, heads_per_group = heads / groups;
    dim = o.head_dim, states = o.d_state;
    warpgroups = with_warpgroups, chunk = warpgroups ? kGroupChunk : kChunk;
    padded_states = states <= 16 ? 16 : states <= 64 ? 64 : states <= 128 ? 128 : kMaxStates;
    tiles_per_warp = warpgroups || padded_states == kMaxStates ? 1 : 2;
    chunks = (seq_len + chunk - 1) / chunk;
    const int64_t most = warpgroups ? kMaxGroupWarps : kMaxWarps;
    const int64_t head_tiles = (dim + kTileRows - 1) / kTileRows;
    parts = (head_tiles + most * tiles_per_warp - 1) / (most * tiles_per_warp);
    tiles = (head_tiles + parts - 1) / parts;
    cut(1);
    double best = cost();
    int64_t choice = 1;
    for (int64_t n = 2; parts == 1 && n <= heads_per_group; ++n) {
      cut(n);
      if (warps > most || warps < n || shared_bytes() > (warpgroups ? kMaxGroupShared : kMaxShared))
        break;
      if (cost() >= best) continue;
      best = cost(), choice = n;
    }
    cut(choice);
  }

  // Blocks of n heads, and as many segments of at least 512 tokens as the device has room for.
  STRATA_INLINE void cut(int64_t n) {
    block_heads = n, head_blocks = (heads_per_group + n - 1) / n;
    warps = (n * tiles + tiles_per_warp - 1) / tiles_per_warp;
    if (warpgroups) warps = (warps + 3) / 4 * 4;
    const int64_t room = kDevice / blocks(), limit = chunks * chunk / 512;
    int64_t count = room < limit ? room : limit;
    count = count < 1 ? 1 : count > 16 ? 16 : count;
    segment_chunks = (chunks + count - 1) / count;
    segments = (chunks + segment_chunks - 1) / segment_chunks;
  }
  STRATA_INLINE int64_t blocks() const { return batch * groups * head_blocks * parts; }
  // The time of the busiest multiprocessor, as measured: a block costs its rows and a part that
  // its heads share; fewer than eight warps leave a multiprocessor waiting; the first pass over
  // segments costs two fifths of the second.
  STRATA_INLINE double cost() const {
    const int64_t rounds = (blocks() * segments + kDevice - 1) / kDevice;
    const double length = double(segment_chunks) * (segments > 1 ? 1.4 : 1);
    if (warpgroups) return double(rounds) * length * (1.5 + double(warps) / 4);
    const int64_t room = kMaxWarps / warps;
    const int64_t together = warps * (rounds < room ? rounds : room);
    return double(rounds) * length * (double(block_heads) + 0.5) /
           (together < 8 ? double(together) / 8 : 1);
  }
  // Elements from row to row of the shared tiles of x, and of B and C.
  STRATA_INLINE int64_t x_pitch() const {
    return warps * tiles_per_warp * kTileRows + (warpgroups ? 0 : 8);
  }
  STRATA_INLINE int64_t bc_pitch() const { return padded_states + (warpgroups ? 0 : 8); }
  STRATA_INLINE int64_t stage_elements() const { return chunk * (x_pitch() + 2 * bc_pitch()); }
  STRATA_INLINE int64_t shared_bytes() const {
    return 2 * ((warpgroups ? kGroupStages : 2) * stage_elements() +
                block_heads * chunk * (chunk + 8)) +
           2 * kCoefficients * block_heads * chunk * int64_t(sizeof(float)) +
           (warpgroups ? 1024 + 8 * kGroupStages : 0);  // to begin at a whole kilobyte; barriers
  }
};

struct SsdMmaWorkspace {
  float* states;  // (segments, batch, heads, P, N): the start; what segments 0, 1, ... add
  float* decays;  // (segments, batch, heads): the product of a over a segment
  int64_t bytes;

  STRATA_INLINE SsdMmaWorkspace(const SsdMmaPlan& p, char* base) {
    SsdCarver carve{base};
    const int64_t pairs = p.segments > 1 ? p.segments * p.batch * p.heads : 0;
    states = carve.take<float>(pairs * p.dim * p.states);
    decays = carve.take<float>(pairs);
    bytes = carve.used;
  }
  // Bytes that serve every device.
  STRATA_INLINE static int64_t most_bytes(const SsdScanArgs& a) {
    const int64_t bytes = SsdMmaWorkspace(SsdMmaPlan(a, false), nullptr).bytes;
    if (!SsdMmaPlan::fits_warpgroups(a)) return bytes;
    const int64_t other = SsdMmaWorkspace(SsdMmaPlan(a, true), nullptr).bytes;
    return other > bytes ? other : bytes;
  }
};

}  // namespace strata::mamba2
