// Steps that the forward and the backward CUDA kernels of the scan share; ssd_chunk_cpu.h has the
// algebra. A block works on one place: a chunk of a sequence, or a head (or group) in it. Tokens
// past the end of the last chunk count as a = 1, dt = 0.
#pragma once

#include "core/kernels/decay_tile.cuh"
#include "layers/mamba2/ssd_coefficients_cuda.cuh"

namespace strata::mamba2 {
namespace {

constexpr int kQ = kTile;  // tokens per chunk
static_assert(SsdCudaSizes::kChunk == kTile);

// Chunks [first, first + count) of all sequences.
template <class T>
struct Scan {
  SsdScanArgs args;
  SsdCudaSizes s;
  SsdCudaWorkspace<T> w;
  int64_t first, count;
  bool keep;  // the final state; the backward leaves it alone

  Scan(const SsdScanArgs& a, bool backward)
      : args(a),
        s(a, backward),
        w(a, backward, a.workspace.ptr<char>()),
        first(0),
        count(s.segment),
        keep(!backward) {}

  // The state that sequence b starts from, or null.
  STRATA_INLINE const T* start(int64_t b) const {
    if (args.state) return args.state.row<T>(b);
    return args.initial_state ? args.initial_state.ptr<T>() + b * s.heads * s.dim * s.states
                              : nullptr;
  }
  // The place of its final state, or null.
  STRATA_INLINE T* end(int64_t b) const {
    if (!keep) return nullptr;
    if (args.state) return args.state.row<T>(b);
    return args.final_state ? args.final_state.ptr<T>() + b * s.heads * s.dim * s.states : nullptr;
  }
  STRATA_INLINE bool has_start() const { return args.state || args.initial_state; }
};

// One entry of an array over (batch, chunk of the segment, `inner` heads or groups).
struct Place {
  int64_t batch, inner, chunk, index;  // chunk: of the whole sequence; index: into the workspace
  int64_t row0;                        // first token, as a row of x
  int tokens;

  template <class T>
  __device__ __forceinline__ Place(const Scan<T>& k, int64_t i, int64_t inners) {
    inner = i % inners;
    const int64_t local = i / inners % k.count;
    batch = i / (inners * k.count);
    chunk = k.first + local;
    index = (batch * k.s.segment + local) * inners + inner;
    row0 = batch * k.s.seq_len + chunk * kQ;
    const int64_t left = k.s.seq_len - chunk * kQ;
    tokens = left < kQ ? int(left) : kQ;
  }
};

// dt, a, their running products and (backward) slope and open; one warp per place, two tokens per
// lane.
template <class T>
__global__ void coefficients_kernel(Scan<T> k) {
  const int lane = threadIdx.x % kWarp;
  const int64_t warp = int64_t(blockIdx.x) * (blockDim.x / kWarp) + threadIdx.x / kWarp;
  if (warp >= k.s.batch * k.count * k.s.heads) return;
  const Place at(k, warp, k.s.heads);
  const int64_t to = at.index * kQ + 2 * lane;
  T dt[2], a[2];
  for (int i = 0; i < 2; ++i) {
    const int t = 2 * lane + i;
    T slope = 0, open = 0;
    dt[i] = 0, a[i] = 1;
    if (t < at.tokens) {
      const Step<T> step(k.args, at.batch, at.chunk * kQ + t, at.inner);
      dt[i] = step.dt, a[i] = step.a, slope = step.slope, open = step.open;
    }
    k.w.dt[to + i] = dt[i], k.w.a[to + i] = a[i];
    if (k.w.slope) k.w.slope[to + i] = slope, k.w.open[to + i] = open;
  }
  T up = a[0] * a[1], down = up;  // products over the lanes up to this one, and from it on
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const T before = __shfl_up_sync(kAllLanes, up, offset);
    const T after = __shfl_down_sync(kAllLanes, down, offset);
    if (lane >= offset) up *= before;
    if (lane + offset < kWarp) down *= after;
  }
  const T before = __shfl_up_sync(kAllLanes, up, 1), after = __shfl_down_sync(kAllLanes, down, 1);
  const T head = lane > 0 ? before : T(1), rest = lane + 1 < kWarp ? after : T(1);
  k.w.decay[to] = head * a[0], k.w.decay[to + 1] = head * a[0] * a[1];
  k.w.tail[to] = dt[0] * a[1] * rest, k.w.tail[to + 1] = dt[1] * rest;
}

// G = C B^T, one block per (batch, chunk, group).
template <class T>
__global__ void __launch_bounds__(kTileThreads) correlate_kernel(Scan<T> k) {
  __shared__ alignas(16) T room[kTileRoom];
  const Place at(k, blockIdx.x, k.s.groups);
  const int n = int(k.s.states);
  const int64_t b_pitch = k.args.b.pitch, c_pitch = k.args.c.pitch;
  const T* b = k.args.b.template row<T>(at.row0) + at.inner * n;
  const T* c = k.args.c.template row<T>(at.row0) + at.inner * n;
  T acc[4][4] = {};
  tile_product<true, true>(
      acc, n, [&](int i, int s) { return i < at.tokens ? c[i * c_pitch + s] : T(0); },
      [&](int s, int j) { return j < at.tokens ? b[j * b_pitch + s] : T(0); }, room);
  T* g = k.w.g + at.index * kQ * kQ;
  each_of_tile(acc, [&](int i, int j, T value) { g[i * kQ + j] = value; });
}

// out (P, N) = (f o x)^T b over the tokens of a chunk, with x: (.., heads P) and b: (.., groups N):
// what a chunk adds to the state, and, from dy and C, to its gradient. blockIdx.y: tile of (P, N).
template <class T>
__global__ void __launch_bounds__(kTileThreads)
    outer_kernel(Scan<T> k, Tensor x_all, Tensor b_all, const T* factors, T* out_all) {
  __shared__ alignas(16) T room[kTileRoom];
  const Place at(k, blockIdx.x, k.s.heads);
  const int dim = int(k.s.dim), n = int(k.s.states), tiles = (n + kTile - 1) / kTile;
  const int p0 = int(blockIdx.y) / tiles * kTile, n0 = int(blockIdx.y) % tiles * kTile;
  const int64_t x_pitch = x_all.pitch, b_pitch = b_all.pitch;
  const T* x = x_all.row<T>(at.row0) + at.inner * dim + p0;
  const T* b = b_all.row<T>(at.row0) + at.inner / k.s.heads_per_group * n + n0;
  const T* f = factors + at.index * kQ;
  T acc[4][4] = {};
  tile_product<false, false>(
      acc, at.tokens, [&](int p, int t) { return p0 + p < dim ? f[t] * x[t * x_pitch + p] : T(0); },
      [&](int t, int s) { return n0 + s < n ? b[t * b_pitch + s] : T(0); }, room);
  T* out = out_all + at.index * dim * n;
  each_of_tile(acc, [&](int p, int s, T value) {
    if (p0 + p < dim && n0 + s < n) out[int64_t(p0 + p) * n + n0 + s] = value;
  });
}

// Turns what each chunk adds into the states at chunk starts, S' = p_Q S + added, and leaves the
// last state in its place. One thread per element; loads run ahead in batches.
template <class T>
__global__ void pass_states_kernel(Scan<T> k) {
  constexpr int kAhead = 8;
  const int64_t size = k.s.dim * k.s.states, heads = k.s.heads, stride = heads * size;
  const bool last_segment = k.first + k.count == k.s.chunks;
  STRATA_GRID_LOOP(i, k.s.batch * stride) {
    const int64_t b = i / stride, e = i % stride;
    const T* start = k.first > 0 ? k.w.running + b * stride : k.start(b);
    T state = start ? start[e] : T(0);
    T* states = k.w.states + b * k.s.segment * stride + e;
    const T* last = k.w.decay + (b * k.s.segment * heads + e / size) * kQ + kQ - 1;
    for (int64_t c = 0; c < k.count; c += kAhead) {
      T added[kAhead], decay[kAhead];
#pragma unroll
      for (int j = 0; j < kAhead; ++j)
        if (c + j < k.count) {
          added[j] = states[(c + j) * stride];
          decay[j] = last[(c + j) * heads * kQ];
        }
#pragma unroll
      for (int j = 0; j < kAhead; ++j)
        if (c + j < k.count) {
          states[(c + j) * stride] = state;
          state = decay[j] * state + added[j];
        }
    }
    T* end = last_segment ? k.end(b) : k.w.running + b * stride;
    if (end) end[e] = state;
  }
}

inline unsigned outer_tiles(const SsdCudaSizes& s) {
  return unsigned((s.dim + kTile - 1) / kTile * ((s.states + kTile - 1) / kTile));
}

// Coefficients, G and the states at the starts of the chunks of a segment.
template <class T>
void chunk_states(const Scan<T>& k, cudaStream_t stream) {
  const int64_t pairs = k.s.batch * k.count * k.s.heads;
  constexpr int kWarps = kThreads / kWarp;
  coefficients_kernel<T><<<unsigned((pairs + kWarps - 1) / kWarps), kThreads, 0, stream>>>(k);
  correlate_kernel<T><<<unsigned(k.s.batch * k.count * k.s.groups), kTileThreads, 0, stream>>>(k);
  outer_kernel<T><<<dim3(unsigned(pairs), outer_tiles(k.s)), kTileThreads, 0, stream>>>(
      k, k.args.x, k.args.b, k.w.tail, k.w.states);
  pass_states_kernel<T>
      <<<blocks_for(k.s.batch * k.s.heads * k.s.dim * k.s.states), kThreads, 0, stream>>>(k);
}

}  // namespace
}  // namespace strata::mamba2
