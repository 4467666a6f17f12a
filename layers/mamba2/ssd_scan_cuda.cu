// The scan, forward: chunks of 64 tokens as matrix products, and single tokens as written. See
// ssd_chunk_cpu.h for the algebra.
#include "layers/mamba2/ssd_chunk.cuh"

namespace strata::mamba2 {
namespace {

// y of one chunk of one head, 64 columns: p o (C S^T) + ((C B^T) o M) x + D x.
template <class T>
__global__ void __launch_bounds__(kTileThreads) output_kernel(Scan<T> k) {
  extern __shared__ __align__(16) char shared[];
  T* room = reinterpret_cast<T*>(shared);
  T *w = room + kTileRoom, *a = w + kQ * kQ, *dt = a + kQ;  // (Q, Q), (Q), (Q)
  const Place at(k, blockIdx.x, k.s.heads);
  const int dim = int(k.s.dim), n = int(k.s.states), p0 = int(blockIdx.y) * kTile;
  const int64_t group = at.inner / k.s.heads_per_group;
  const int64_t x_pitch = k.args.x.pitch, c_pitch = k.args.c.pitch;
  const T* x = k.args.x.template row<T>(at.row0) + at.inner * dim + p0;
  const T* c = k.args.c.template row<T>(at.row0) + group * n;
  const T* g = k.w.g + (at.index / k.s.heads * k.s.groups + group) * kQ * kQ;
  if (threadIdx.x < kQ) {
    a[threadIdx.x] = k.w.a[at.index * kQ + threadIdx.x];
    dt[threadIdx.x] = k.w.dt[at.index * kQ + threadIdx.x];
  }
  __syncthreads();
  decay_columns(a, dt,
                [&](int i, int j, T m) { w[i * kQ + j] = i < j ? T(0) : g[i * kQ + j] * m; });
  T acc[4][4] = {};
  if (at.chunk > 0 || k.has_start()) {
    const T* state = k.w.states + at.index * dim * n + int64_t(p0) * n;
    tile_product<true, true>(
        acc, n, [&](int i, int s) { return i < at.tokens ? c[i * c_pitch + s] : T(0); },
        [&](int s, int p) { return p0 + p < dim ? state[p * n + s] : T(0); }, room);
    const T* decay = k.w.decay + at.index * kQ;
    each_of_tile(acc, [&](int i, int, T& value) { value *= decay[i]; });
  }
  __syncthreads();
  tile_product<true, false>(
      acc, at.tokens, [&](int i, int j) { return w[i * kQ + j]; },
      [&](int j, int p) { return p0 + p < dim ? x[j * x_pitch + p] : T(0); }, room);
  const T skip = k.args.d ? k.args.d.template ptr<T>()[at.inner] : T(0);
  each_of_tile(acc, [&](int i, int p, T value) {
    if (i < at.tokens && p0 + p < dim)
      k.args.y.template row<T>(at.row0 + i)[at.inner * dim + p0 + p] =
          value + skip * x[i * x_pitch + p];
  });
}

template <class T>
void ssd_scan_cuda(const SsdScanArgs& args, Stream on) {
  const cudaStream_t stream = stream_of(on);
  Scan<T> k(args, false);
  constexpr int kShared = int(sizeof(T)) * (kTileRoom + kQ * kQ + 2 * kQ);
  check_cuda(
      cudaFuncSetAttribute(output_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared),
      "ssd_scan");
  for (; k.first < k.s.chunks; k.first += k.s.segment) {
    k.count = k.s.chunks - k.first < k.s.segment ? k.s.chunks - k.first : k.s.segment;
    chunk_states(k, stream);
    const dim3 grid(unsigned(k.s.batch * k.count * k.s.heads),
                    unsigned((k.s.dim + kTile - 1) / kTile));
    output_kernel<T><<<grid, kTileThreads, kShared, stream>>>(k);
  }
  check_launch("ssd_scan");
}

constexpr int kStepThreads = 128;
constexpr int kStepRows = 4;  // rows of the state in flight per group of lanes

template <class T, int kVec>
struct alignas(sizeof(T) * kVec) Pack {
  T v[kVec];
};

// The recurrence token by token; decode runs one. A block has a tile of the rows of one head's
// state (P, N); a group of `lanes` threads streams kStepRows of them, kVec elements at a time, and
// each thread meets the same elements at every token. blockIdx.y: tile of rows.
template <class T, int kVec>
__global__ void __launch_bounds__(kStepThreads) step_kernel(Scan<T> k, int lanes) {
  const int64_t pair = blockIdx.x, b = pair / k.s.heads, h = pair % k.s.heads;
  const int64_t size = k.s.dim * k.s.states, group = h / k.s.heads_per_group;
  const int dim = int(k.s.dim), n = int(k.s.states);
  const int lane = int(threadIdx.x) % lanes, groups = kStepThreads / lanes;
  const int first = (int(blockIdx.y) * kStepRows) * groups + int(threadIdx.x) / lanes;
  const T* start = k.start(b) ? k.start(b) + h * size : nullptr;
  T* state = (k.end(b) ? k.end(b) : k.w.states + b * k.s.heads * size) + h * size;
  const T skip = k.args.d ? k.args.d.template ptr<T>()[h] : T(0);
  for (int64_t t = 0; t < k.s.seq_len; ++t) {
    const T* from = t > 0 ? state : start;
    const int64_t row = b * k.s.seq_len + t;
    const Step<T> step(k.args, b, t, h);
    const T* x = k.args.x.template row<T>(row) + h * dim;
    const T* in = k.args.b.template row<T>(row) + group * n;
    const T* out = k.args.c.template row<T>(row) + group * n;
    T sum[kStepRows] = {}, u[kStepRows];
#pragma unroll
    for (int r = 0; r < kStepRows; ++r) {
      const int p = first + r * groups;
      u[r] = p < dim ? step.dt * x[p] : T(0);
    }
    for (int s = lane * kVec; s < n; s += lanes * kVec) {
      Pack<T, kVec> old[kStepRows];
#pragma unroll
      for (int r = 0; r < kStepRows; ++r) {
        const int p = first + r * groups;
        old[r] = {};
        if (from && p < dim)
          old[r] = *reinterpret_cast<const Pack<T, kVec>*>(from + int64_t(p) * n + s);
      }
      T b_t[kVec], c_t[kVec];
#pragma unroll
      for (int v = 0; v < kVec; ++v) b_t[v] = in[s + v], c_t[v] = out[s + v];
#pragma unroll
      for (int r = 0; r < kStepRows; ++r) {
        const int p = first + r * groups;
        if (p >= dim) continue;
#pragma unroll
        for (int v = 0; v < kVec; ++v) {
          old[r].v[v] = step.a * old[r].v[v] + u[r] * b_t[v];
          sum[r] += old[r].v[v] * c_t[v];
        }
        *reinterpret_cast<Pack<T, kVec>*>(state + int64_t(p) * n + s) = old[r];
      }
    }
    T* y = k.args.y.template row<T>(row) + h * dim;
#pragma unroll
    for (int r = 0; r < kStepRows; ++r) {
      for (int offset = lanes / 2; offset > 0; offset /= 2)
        sum[r] += __shfl_xor_sync(kAllLanes, sum[r], offset);
      const int p = first + r * groups;
      if (lane == 0 && p < dim) y[p] = sum[r] + skip * x[p];
    }
  }
}

template <class T, int kVec>
void launch_step(const Scan<T>& k, cudaStream_t stream) {
  int lanes = 1;  // a power of two that covers a row, at most a warp
  while (lanes < kWarp && lanes * kVec < k.s.states) lanes *= 2;
  const int64_t rows = kStepThreads / lanes * kStepRows;
  const dim3 grid(unsigned(k.s.batch * k.s.heads), unsigned((k.s.dim + rows - 1) / rows));
  step_kernel<T, kVec><<<grid, kStepThreads, 0, stream>>>(k, lanes);
}

template <class T>
void ssd_step_cuda(const SsdScanArgs& args, Stream on) {
  constexpr int kVec = int(16 / sizeof(T));
  const Scan<T> k(args, false);
  const auto aligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
  const bool whole = k.s.states % kVec == 0 && aligned(args.state.base) &&
                     args.state.slot_bytes % 16 == 0 && aligned(args.initial_state.data) &&
                     aligned(args.final_state.data) && aligned(k.w.states);
  if (whole)
    launch_step<T, kVec>(k, stream_of(on));
  else
    launch_step<T, 1>(k, stream_of(on));
  check_launch("ssd_step");
}

STRATA_CUDA_KERNEL("ssd_scan", SsdScanArgs, ssd_scan_cuda)
STRATA_CUDA_KERNEL("ssd_step", SsdScanArgs, ssd_step_cuda)

}  // namespace
}  // namespace strata::mamba2
