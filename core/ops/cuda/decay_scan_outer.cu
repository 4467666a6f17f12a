// S_t = a_t S_{t-1} + k_t v_t^T, y_t = S_t^T q_t, token by token with the state in registers: per
// token it costs about what the matrix products of a chunk would, and any decay will do. A block
// holds 32 columns of the state of one (sequence, head) pair: a lane per column, its rows spread
// over the warps. Tokens are staged through shared memory, 16 at a time; the warps' shares of y
// are added up after each stage in the order of the warps.
#include "core/kernels/expect.cuh"
#include "core/ops/cuda/elementwise.cuh"
#include "core/ops/decay_scan.h"

namespace strata {
namespace {

constexpr int kWarps = kThreads / kWarp;
constexpr int kStage = 16;  // tokens
static_assert(kScanChunk % kStage == 0);

// Shared memory, in elements: k and q (kStage, rows) each, v (kStage, 32), a (kStage), and the
// warps' shares of y (kWarps, kStage, 32).
constexpr int shared_elements(int rows) {
  return kStage * (2 * rows + kWarp + 1) + kWarps * kStage * kWarp;
}

// Rows [row0, row0 + kWarps kRows) of the state; `later`: add to the y of earlier rows. kRows: rows
// per warp. blockIdx: pair, tile of 32 columns.
template <class T, int kRows>
__global__ void __launch_bounds__(kThreads)
    outer_kernel(DecayScanOuterArgs s, int64_t row0, bool later) {
  constexpr int kSlab = kWarps * kRows;
  using A = Accum<T>;
  extern __shared__ __align__(16) char shared[];
  A* k = reinterpret_cast<A*>(shared);
  A *q = k + kStage * kSlab, *v = q + kStage * kSlab, *a = v + kStage * kWarp;
  A* parts = a + kStage;
  const int64_t seq_len = s.k.shape[1], heads = s.k.shape[2], d_k = s.k.cols(), d_v = s.v.cols();
  const int64_t b = blockIdx.x / heads, head = blockIdx.x % heads;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t c = int64_t(blockIdx.y) * kWarp + lane, first = row0 + warp * kRows;
  const int64_t chunks = (seq_len + kScanChunk - 1) / kScanChunk;
  const int32_t* doc = s.seq_idx ? s.seq_idx.ptr<int32_t>() + b * seq_len : nullptr;
  A* kept = s.state ? s.state.row<A>(b) + head * d_k * d_v + c : nullptr;
  const auto inside = [&](int r) { return first + r < d_k && c < d_v; };

  A state[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) state[r] = kept && inside(r) ? kept[(first + r) * d_v] : A(0);
  for (int64_t t0 = 0; t0 < seq_len; t0 += kStage) {
    const int n = seq_len - t0 < kStage ? int(seq_len - t0) : kStage;
    if (s.starts && t0 % kScanChunk == 0) {
      A* start = s.starts.row<A>((b * chunks + t0 / kScanChunk) * heads + head) + c;
#pragma unroll
      for (int r = 0; r < kRows; ++r)
        if (inside(r)) start[(first + r) * d_v] = state[r];
    }
    for (int e = threadIdx.x; e < n * kSlab; e += kThreads) {
      const int64_t row = (b * seq_len + t0 + e / kSlab) * heads + head, i = row0 + e % kSlab;
      k[e] = i < d_k ? wide(s.k.row<T>(row)[i]) : A(0);
      q[e] = i < d_k ? wide(s.q.row<T>(row)[i]) : A(0);
    }
    for (int e = threadIdx.x; e < n * kWarp; e += kThreads) {  // e % 32 is this thread's lane
      const int64_t row = (b * seq_len + t0 + e / kWarp) * heads + head;
      v[e] = c < d_v ? wide(s.v.row<T>(row)[c]) : A(0);
    }
    if (threadIdx.x < n) {
      const int64_t t = t0 + threadIdx.x;
      const bool starts = doc && t > 0 && doc[t] != doc[t - 1];
      a[threadIdx.x] = starts ? A(0) : get_at<T>(s.a, (b * seq_len + t) * s.a.pitch + head);
    }
    __syncthreads();
    for (int t = 0; t < n; ++t) {
      const A decay = a[t], value = v[t * kWarp + lane];
      A sum = 0;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        state[r] = decay * state[r] + k[t * kSlab + warp * kRows + r] * value;
        sum += q[t * kSlab + warp * kRows + r] * state[r];
      }
      parts[(warp * kStage + t) * kWarp + lane] = sum;
    }
    __syncthreads();
    for (int e = threadIdx.x; e < n * kWarp; e += kThreads) {
      A sum = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) sum += parts[w * kStage * kWarp + e];
      const int64_t row = (b * seq_len + t0 + e / kWarp) * heads + head;
      if (c < d_v) put_accum<T, 1>(s.y.row<T>(row) + c, {sum}, later);
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    if (kept && inside(r)) kept[(first + r) * d_v] = state[r];
}

template <class T, int kRows>
void launch(const DecayScanOuterArgs& s, cudaStream_t stream) {
  constexpr int kShared = int(sizeof(Accum<T>)) * shared_elements(kWarps * kRows);
  check_cuda(cudaFuncSetAttribute(outer_kernel<T, kRows>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, kShared),
             "decay_scan_outer");
  const dim3 grid(unsigned(s.k.shape[0] * s.k.shape[2]), unsigned((s.v.cols() + 31) / kWarp));
  for (int64_t row0 = 0; row0 < s.k.cols(); row0 += kWarps * kRows)
    outer_kernel<T, kRows><<<grid, kThreads, kShared, stream>>>(s, row0, row0 > 0);
}

template <class T>
void decay_scan_outer_cuda(const DecayScanOuterArgs& s, Stream on) {
  expect_read<T>("decay_scan_outer", {&s.k, &s.v, &s.q, &s.y});
  expect_either<T>("decay_scan_outer", {&s.a});
  constexpr int kMost =
      128 / int(sizeof(Accum<T>));  // rows per warp whose registers and stages fit
  const int64_t d_k = s.k.cols();
  if (d_k <= 4 * kWarps)
    launch<T, 4>(s, stream_of(on));
  else if (d_k <= 8 * kWarps)
    launch<T, 8>(s, stream_of(on));
  else if (d_k <= 16 * kWarps || kMost == 16)
    launch<T, 16>(s, stream_of(on));
  else
    launch<T, kMost>(s, stream_of(on));
  check_launch("decay_scan_outer");
}

}  // namespace

STRATA_CUDA_KERNEL("decay_scan_outer", DecayScanOuterArgs, decay_scan_outer_cuda)
STRATA_CUDA_HALF_KERNEL("decay_scan_outer", DecayScanOuterArgs, decay_scan_outer_cuda)

}  // namespace strata
