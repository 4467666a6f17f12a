// The scan token by token, as ssd_scan.h writes it; decode runs one. The state is read and written
// once per token, which is all the time there is to save.
#include "core/kernels/pack.cuh"
#include "layers/mamba2/ssd_coefficients_cuda.cuh"

namespace strata::mamba2 {
namespace {

constexpr int kStepThreads = 128;
constexpr int kStepRows = 4;  // rows of the state in flight per group of lanes

template <class A>
struct StepScan {
  SsdScanArgs args;
  int64_t batch, seq_len, heads, heads_per_group, dim, states;
  A* running;   // (batch, heads, P, N): where no state is kept; null for one token
  bool packed;  // as many elements of B and C at once as of the state

  explicit StepScan(const SsdScanArgs& a) : args(a), running(nullptr), packed(false) {
    const SsdScanOptions& o = a.options;
    batch = a.x.shape[0], seq_len = a.x.shape[1], heads = o.n_heads;
    heads_per_group = o.n_heads / o.n_groups, dim = o.head_dim, states = o.d_state;
  }
  STRATA_INLINE const A* start(int64_t b) const {
    if (args.state) return args.state.row<A>(b);
    return args.initial_state ? args.initial_state.ptr<A>() + b * heads * dim * states : nullptr;
  }
  STRATA_INLINE A* end(int64_t b) const {
    if (args.state) return args.state.row<A>(b);
    if (args.final_state) return args.final_state.ptr<A>() + b * heads * dim * states;
    return running ? running + b * heads * dim * states : nullptr;
  }
};

// kVec numbers from `at`, at once if they are aligned so.
template <int kVec, class T>
__device__ __forceinline__ Pack<T, kVec> load_some(const T* at, bool aligned) {
  if (aligned) return load_pack<kVec>(at);
  Pack<T, kVec> out;
#pragma unroll
  for (int v = 0; v < kVec; ++v) out[v] = at[v];
  return out;
}

// Blocks that a multiprocessor should hold: loads under way hide their latency.
template <class T>
constexpr int kStepBlocks = sizeof(Accum<T>) == 8 ? 4 : 8;

// A block has a tile of the rows of one head's state (P, N); a group of `lanes` threads streams
// kStepRows of them, kVec elements at a time, and each thread meets the same elements at every
// token. Everything is on its way before anything is waited for.
template <class T, int kVec>
__global__ void __launch_bounds__(kStepThreads, kStepBlocks<T>)
    step_kernel(const __grid_constant__ StepScan<Accum<T>> k, int lanes, int tiles) {
  using A = Accum<T>;
  const int heads = int(k.heads), dim = int(k.dim), n = int(k.states);
  const int pair = int(blockIdx.x) / tiles, b = pair / heads, h = pair % heads;
  const int64_t offset = int64_t(h) * dim * n;
  const int group = h / int(k.heads_per_group);
  const int lane = int(threadIdx.x) % lanes, groups = kStepThreads / lanes;
  const int first = int(blockIdx.x) % tiles * kStepRows * groups + int(threadIdx.x) / lanes;
  const A a_log = k.args.a_log.template ptr<A>()[h];
  const A bias = k.args.dt_bias ? k.args.dt_bias.template ptr<A>()[h] : A(0);
  const A skip = k.args.d ? k.args.d.template ptr<A>()[h] : A(0);
  const A* start = k.start(b);
  A* state = k.end(b);
  if (start) start += offset;
  if (state) state += offset;
  for (int64_t t = 0; t < k.seq_len; ++t) {
    const A* from = t > 0 ? state : start;
    const int64_t row = b * k.seq_len + t;
    const T dt = k.args.dt.template row<T>(row)[h];
    const T* x = k.args.x.template row<T>(row) + h * dim;
    const T* in = k.args.b.template row<T>(row) + group * n;
    const T* out = k.args.c.template row<T>(row) + group * n;
    T u[kStepRows];
    Pack<A, kVec> old[kStepRows];
    Pack<T, kVec> b_t, c_t;
    const auto load = [&](int s) {
      b_t = load_some<kVec>(in + s, k.packed), c_t = load_some<kVec>(out + s, k.packed);
#pragma unroll
      for (int r = 0; r < kStepRows; ++r) {
        const int p = first + r * groups;
        old[r] = {};
        if (from && p < dim) old[r] = load_pack<kVec>(from + p * n + s);
      }
    };
    if (lane * kVec < n) load(lane * kVec);
#pragma unroll
    for (int r = 0; r < kStepRows; ++r) u[r] = x[min(first + r * groups, dim - 1)];
    const Step<T> step(k.args.options, wide(dt), bias, a_log, starts_document(k.args, b, t));
    A sum[kStepRows] = {};
    for (int s = lane * kVec; s < n; s += lanes * kVec) {
      if (s >= lanes * kVec) load(s);
#pragma unroll
      for (int r = 0; r < kStepRows; ++r) {
        const int p = first + r * groups;
        if (p >= dim) continue;
        const A by = step.dt * wide(u[r]);
#pragma unroll
        for (int v = 0; v < kVec; ++v) {
          old[r][v] = step.a * old[r][v] + by * wide(b_t[v]);
          sum[r] += old[r][v] * wide(c_t[v]);
        }
        if (state) store_pack(state + p * n + s, old[r]);
      }
    }
    T* y = k.args.y.template row<T>(row) + h * dim;
#pragma unroll
    for (int r = 0; r < kStepRows; ++r) {
      for (int offset = lanes / 2; offset > 0; offset /= 2)
        sum[r] += __shfl_xor_sync(kAllLanes, sum[r], offset);
      const int p = first + r * groups;
      if (lane == 0 && p < dim) y[p] = narrow_to<T>(sum[r] + skip * wide(u[r]));
    }
  }
}

template <class T, int kVec>
void launch_step(const StepScan<Accum<T>>& k, cudaStream_t stream) {
  int lanes = 1;  // a power of two that covers a row, at most a warp
  while (lanes < kWarp && lanes * kVec < k.states) lanes *= 2;
  const int64_t rows = kStepThreads / lanes * kStepRows;
  const int64_t tiles = (k.dim + rows - 1) / rows;
  step_kernel<T, kVec>
      <<<unsigned(k.batch * k.heads * tiles), kStepThreads, 0, stream>>>(k, lanes, int(tiles));
}

template <class T>
void ssd_step_cuda(const SsdScanArgs& args, Stream on) {
  using A = Accum<T>;
  constexpr int kVec = int(16 / sizeof(A));
  StepScan<A> k(args);
  if (k.seq_len > 1 && !args.state && !args.final_state) {
    if constexpr (is_half<T>)
      kernel_error("ssd_step: several tokens of %s need a state or a final_state",
                   name_of(args.x.dtype));
    else
      k.running = SsdCudaWorkspace<T>(args, false, args.workspace.ptr<char>()).states;
  }
  const auto aligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
  const bool whole = k.states % kVec == 0 && aligned(args.state.base) &&
                     args.state.slot_bytes % 16 == 0 && aligned(args.initial_state.data) &&
                     aligned(args.final_state.data) && aligned(k.running);
  const int64_t step = kVec * int64_t(sizeof(T));
  const auto even = [&](const Tensor& x) {
    return reinterpret_cast<uintptr_t>(x.data) % step == 0 &&
           x.pitch * int64_t(sizeof(T)) % step == 0;
  };
  k.packed = whole && even(args.b) && even(args.c);
  if (whole)
    launch_step<T, kVec>(k, stream_of(on));
  else
    launch_step<T, 1>(k, stream_of(on));
  check_launch("ssd_step");
}

STRATA_CUDA_KERNEL("ssd_step", SsdScanArgs, ssd_step_cuda)
STRATA_CUDA_HALF_KERNEL("ssd_step", SsdScanArgs, ssd_step_cuda)

}  // namespace
}  // namespace strata::mamba2
