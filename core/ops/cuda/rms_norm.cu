// rms_norm. In general a team of threads passes over its group of a row twice, the second time out
// of the cache, and the gradient of the weight is a pass of its own, over columns; rows of two-byte
// numbers that lie on 16 bytes are walked (row_walk.cuh), which reads everything once.
#include "core/ops/rms_norm.h"

#include "core/kernels/expect.cuh"
#include "core/ops/cuda/rms_norm_short.cuh"
#include "core/ops/cuda/row_walk.cuh"

namespace strata {
namespace {

template <class T, int kTeam, int N>
__global__ void rms_norm_kernel(RmsNormArgs a) {
  using A = Accum<T>;
  const int64_t group = a.options.group;
  const Team<kTeam> team(a.x, group);
  if (team.idle) return;
  const T* x = a.x.row<T>(team.row) + team.at;
  T* y = a.y.row<T>(team.row) + team.at;
  A sum = 0;
  for (int64_t c = team.lane * N; c < group; c += kTeam * N) {
    const Pack<A, N> v = widen(load_pack<N>(x + c));
#pragma unroll
    for (int e = 0; e < N; ++e) sum += v.v[e] * v.v[e];
  }
  const A inv = A(1) / sqrt_of(team.sum(sum) / A(group) + A(a.options.eps));
  if (team.lane == 0) a.inv.row<A>(team.row)[team.g] = inv;
  const A one = a.options.weight_plus_one ? 1 : 0;
  for (int64_t c = team.lane * N; c < group; c += kTeam * N) {
    Pack<A, N> v = widen(load_pack<N>(x + c));
    const Pack<A, N> w = weights_at<N>(a.weight.ptr<A>(), team.at + c, one);
#pragma unroll
    for (int e = 0; e < N; ++e) v.v[e] = v.v[e] * inv * w.v[e];
    store_pack(y + c, narrow<T>(v));
  }
}

template <class T, int kPacks>
__global__ void __launch_bounds__(kWalkThreads) rms_norm_walk_kernel(RmsNormArgs a) {
  using A = Accum<T>;
  constexpr int N = kPack<T>;
  RowWalk<T, 1, kPacks> walk(a.x, a.options.group);
  walk.input(0, a.x);
  walk.start();
  A w[kPacks][N];
  walk_weights(walk, a.weight.ptr<A>(), a.options.weight_plus_one, w);
  for (; !walk.done(); walk.step()) {
    walk.arrive();
    A sum = 0;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      if (!walk.has(k)) continue;
      const auto v = walk.get(0, k);
#pragma unroll
      for (int e = 0; e < N; ++e) sum += v[e] * v[e];
    }
    const A inv = A(1) / sqrt_of(walk.sum(sum) / A(a.options.group) + A(a.options.eps));
    if (threadIdx.x == 0) a.inv.row<A>(walk.row)[blockIdx.x] = inv;
    T* y = a.y.row<T>(walk.row) + walk.at;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      if (!walk.has(k)) continue;
      auto v = walk.get(0, k);
#pragma unroll
      for (int e = 0; e < N; ++e) v[e] = v[e] * inv * w[k][e];
      store_pack(y + walk.column(k), narrow<T>(v));
    }
  }
}

template <class T>
void rms_norm_cuda(const RmsNormArgs& a, Stream stream) {
  expect_accum<T>("rms_norm", "the weight", a.weight);
  const int64_t group = a.options.group;
  const bool packs = packable(a.x) && packable(a.weight) && packable(a.y);
  if constexpr (is_half<T>) {
    if (const int lanes = short_lanes<T>(a.x, group, packs)) {
      const int64_t blocks = short_blocks(a.x.rows(), lanes, kShortAhead, 1 << 20);
      rms_norm_short_kernel<T><<<unsigned(blocks), kThreads, 0, stream_of(stream)>>>(a, lanes);
      return check_launch("rms_norm");
    }
  }
  const bool walked = with_walk<T>(a.x, group, 1, packs, [&](auto n, int threads) {
    launch_walk("rms_norm", rms_norm_walk_kernel<T, n.value>, a, a.x, group, nullptr, 1, n.value,
                threads, stream_of(stream));
  });
  if (!walked)
    with_teams<T>(a.x, group, packs, [&](auto team, auto n, unsigned blocks) {
      rms_norm_kernel<T, team.value, n.value><<<blocks, kThreads, 0, stream_of(stream)>>>(a);
    });
  check_launch("rms_norm");
}

// With n = x inv and u = dy w:  dx = inv (u - n mean(u n)),  dw = sum over rows of dy n.
template <class T, int kTeam, int N>
__global__ void rms_norm_dx_kernel(RmsNormBackwardArgs a) {
  using A = Accum<T>;
  const int64_t group = a.options.group;
  const Team<kTeam> team(a.x, group);
  if (team.idle) return;
  const T* x = a.x.row<T>(team.row) + team.at;
  const T* dy = a.dy.row<T>(team.row) + team.at;
  T* dx = a.dx.grad.row<T>(team.row) + team.at;
  const A one = a.options.weight_plus_one ? 1 : 0, inv = a.inv.row<A>(team.row)[team.g];
  A dot = 0;
  for (int64_t c = team.lane * N; c < group; c += kTeam * N) {
    const Pack<A, N> v = widen(load_pack<N>(x + c)), u = widen(load_pack<N>(dy + c));
    const Pack<A, N> w = weights_at<N>(a.weight.ptr<A>(), team.at + c, one);
#pragma unroll
    for (int e = 0; e < N; ++e) dot += u.v[e] * w.v[e] * v.v[e];
  }
  const A pull = team.sum(dot) * inv * inv / A(group);
  for (int64_t c = team.lane * N; c < group; c += kTeam * N) {
    const Pack<A, N> v = widen(load_pack<N>(x + c)), u = widen(load_pack<N>(dy + c));
    Pack<A, N> out = weights_at<N>(a.weight.ptr<A>(), team.at + c, one);
#pragma unroll
    for (int e = 0; e < N; ++e) out.v[e] = inv * (u.v[e] * out.v[e] - v.v[e] * pull);
    put_accum(dx + c, out, a.dx.accumulate);
  }
}

template <class T>
struct RmsNormWeightGradient {
  RmsNormBackwardArgs a;
  __device__ __forceinline__ void operator()(int64_t r, int64_t c, Accum<T> (&sums)[1]) const {
    sums[0] += wide(a.dy.row<T>(r)[c]) * wide(a.x.row<T>(r)[c]) *
               a.inv.row<Accum<T>>(r)[c / a.options.group];
  }
};

// kInputs: 3 when dx is added to what is there, which then comes ahead like x and dy.
template <class T, int kPacks, int kInputs>
__global__ void __launch_bounds__(kWalkThreads)
    rms_norm_backward_walk_kernel(RmsNormBackwardArgs a) {
  using A = Accum<T>;
  constexpr int N = kPack<T>;
  RowWalk<T, kInputs, kPacks> walk(a.x, a.options.group);
  walk.input(0, a.x);
  walk.input(1, a.dy);
  if constexpr (kInputs == 3) walk.input(2, a.dx.grad);
  walk.start();
  A w[kPacks][N], dw[kPacks][N] = {};
  walk_weights(walk, a.weight.ptr<A>(), a.options.weight_plus_one, w);
  A inv_next = a.inv.row<A>(walk.row)[blockIdx.x];
  for (; !walk.done(); walk.step()) {
    const A inv = inv_next;
    if (walk.more()) inv_next = a.inv.row<A>(walk.row + gridDim.y)[blockIdx.x];
    walk.arrive();
    A dot = 0;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      if (!walk.has(k)) continue;
      const auto x = walk.get(0, k), dy = walk.get(1, k);
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const A product = dy[e] * x[e];
        dot += product * w[k][e];
        dw[k][e] += product * inv;
      }
    }
    if (!a.dx.wanted) continue;
    const A pull = walk.sum(dot) * inv * inv / A(a.options.group);
    T* dx = a.dx.grad.row<T>(walk.row) + walk.at;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      if (!walk.has(k)) continue;
      const auto x = walk.get(0, k);
      auto out = walk.get(1, k);
#pragma unroll
      for (int e = 0; e < N; ++e) out[e] = inv * (out[e] * w[k][e] - x[e] * pull);
      if constexpr (kInputs == 3) {
        const auto before = walk.get(2, k);
#pragma unroll
        for (int e = 0; e < N; ++e) out[e] += before[e];
      }
      store_pack(dx + walk.column(k), narrow<T>(out));
    }
  }
  if (a.partial) walk_sums(walk, a.partial, 0, dw);
}

template <class T>
void rms_norm_backward_cuda(const RmsNormBackwardArgs& a, Stream stream) {
  using A = Accum<T>;
  constexpr const char* kOp = "rms_norm_backward";
  expect_accum<T>(kOp, "the weight", a.weight);
  const int64_t group = a.options.group;
  const bool packs = packable(a.x) && packable(a.weight) && packable(a.dy) && packable(a.dx.grad) &&
                     packable(a.partial);
  const bool adds = a.dx.wanted && a.dx.accumulate;
  int64_t blocks = 0;
  if constexpr (is_half<T>) {
    if (const int lanes = short_lanes<T>(a.x, group, packs)) {
      const int64_t resident = resident_blocks(kOp, rms_norm_short_backward_kernel<T>, kThreads, 0);
      const int64_t most = a.partial && a.partial.rows() < resident ? a.partial.rows() : resident;
      blocks = short_blocks(a.x.rows(), lanes, kShortAheadBackward, most);
      rms_norm_short_backward_kernel<T>
          <<<unsigned(blocks), kThreads, 0, stream_of(stream)>>>(a, lanes);
      sum_blocks<A>(kOp, a.dweight, a.partial, blocks, 0, stream_of(stream));
      return check_launch(kOp);
    }
  }
  const bool walked = with_walk<T>(a.x, group, adds ? 3 : 2, packs, [&](auto n, int threads) {
    const auto launch = [&](auto inputs) {
      blocks = launch_walk(kOp, rms_norm_backward_walk_kernel<T, n.value, inputs.value>, a, a.x,
                           group, &a.partial, inputs.value, n.value, threads, stream_of(stream));
    };
    if (adds)
      launch(std::integral_constant<int, 3>{});
    else
      launch(std::integral_constant<int, 2>{});
  });
  if (!walked) {
    if (a.dx.wanted)
      with_teams<T>(a.x, group, packs, [&](auto team, auto n, unsigned teams) {
        rms_norm_dx_kernel<T, team.value, n.value><<<teams, kThreads, 0, stream_of(stream)>>>(a);
      });
    if (a.dweight.wanted)
      blocks = column_sums<A, 1>(RmsNormWeightGradient<T>{a}, a.x, a.partial, stream_of(stream));
  }
  sum_blocks<A>(kOp, a.dweight, a.partial, blocks, 0, stream_of(stream));
  check_launch(kOp);
}

}  // namespace

STRATA_CUDA_KERNEL("rms_norm", RmsNormArgs, rms_norm_cuda)
STRATA_CUDA_HALF_KERNEL("rms_norm", RmsNormArgs, rms_norm_cuda)
STRATA_CUDA_KERNEL("rms_norm_backward", RmsNormBackwardArgs, rms_norm_backward_cuda)
STRATA_CUDA_BF16_KERNEL("rms_norm_backward", RmsNormBackwardArgs, rms_norm_backward_cuda)

}  // namespace strata
