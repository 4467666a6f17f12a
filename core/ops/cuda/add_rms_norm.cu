// add_rms_norm; how it goes over rows: see rms_norm.cu. Its backward is rms_norm's, which adds.
#include "core/ops/add_rms_norm.h"

#include "core/kernels/expect.cuh"
#include "core/ops/cuda/row_walk.cuh"

namespace strata {
namespace {

// h + scale y as it is stored, which is what the norm sees.
template <class T, int N>
__device__ __forceinline__ Pack<T, N> joined(const Pack<Accum<T>, N>& h, const Pack<Accum<T>, N>& y,
                                             Accum<T> scale) {
  Pack<Accum<T>, N> sum;
#pragma unroll
  for (int e = 0; e < N; ++e) sum[e] = h[e] + scale * y[e];
  return narrow<T>(sum);
}

template <class T, int kTeam, int N>
__global__ void add_rms_norm_kernel(AddRmsNormArgs a) {
  using A = Accum<T>;
  const int64_t group = a.options.group;
  const Team<kTeam> team(a.h, group);
  if (team.idle) return;
  const T* h = a.h.row<T>(team.row) + team.at;
  const T* y = a.y.row<T>(team.row) + team.at;
  T* sum = a.sum.row<T>(team.row) + team.at;
  T* out = a.n.row<T>(team.row) + team.at;
  A square = 0;
  for (int64_t c = team.lane * N; c < group; c += kTeam * N) {
    const Pack<T, N> p =
        joined<T, N>(widen(load_pack<N>(h + c)), widen(load_pack<N>(y + c)), A(a.scale));
    store_pack(sum + c, p);
    const Pack<A, N> v = widen(p);
#pragma unroll
    for (int e = 0; e < N; ++e) square += v[e] * v[e];
  }
  const A inv = A(1) / sqrt_of(team.sum(square) / A(group) + A(a.options.eps));
  if (team.lane == 0) a.inv.row<A>(team.row)[team.g] = inv;
  const A one = a.options.weight_plus_one ? 1 : 0;
  for (int64_t c = team.lane * N; c < group; c += kTeam * N) {
    Pack<A, N> v = widen(load_pack<N>(sum + c));
    const Pack<A, N> w = weights_at<N>(a.weight.ptr<A>(), team.at + c, one);
#pragma unroll
    for (int e = 0; e < N; ++e) v[e] = v[e] * inv * w[e];
    store_pack(out + c, narrow<T>(v));
  }
}

template <class T, int kPacks>
__global__ void __launch_bounds__(kWalkThreads) add_rms_norm_walk_kernel(AddRmsNormArgs a) {
  using A = Accum<T>;
  constexpr int N = kPack<T>;
  RowWalk<T, 2, kPacks> walk(a.h, a.options.group);
  walk.input(0, a.h);
  walk.input(1, a.y);
  walk.start();
  A w[kPacks][N];
  walk_weights(walk, a.weight.ptr<A>(), a.options.weight_plus_one, w);
  for (; !walk.done(); walk.step()) {
    walk.arrive();
    T* sum = a.sum.row<T>(walk.row) + walk.at;
    Pack<T, N> stored[kPacks];
    A square = 0;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      if (!walk.has(k)) continue;
      stored[k] = joined<T, N>(walk.get(0, k), walk.get(1, k), A(a.scale));
      store_pack(sum + walk.column(k), stored[k]);
      const auto v = widen(stored[k]);
#pragma unroll
      for (int e = 0; e < N; ++e) square += v[e] * v[e];
    }
    const A inv = A(1) / sqrt_of(walk.sum(square) / A(a.options.group) + A(a.options.eps));
    if (threadIdx.x == 0) a.inv.row<A>(walk.row)[blockIdx.x] = inv;
    T* out = a.n.row<T>(walk.row) + walk.at;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      if (!walk.has(k)) continue;
      auto v = widen(stored[k]);
#pragma unroll
      for (int e = 0; e < N; ++e) v[e] = v[e] * inv * w[k][e];
      store_pack(out + walk.column(k), narrow<T>(v));
    }
  }
}

template <class T>
void add_rms_norm_cuda(const AddRmsNormArgs& a, Stream stream) {
  expect_accum<T>("add_rms_norm", "the weight", a.weight);
  const int64_t group = a.options.group;
  const bool packs =
      packable(a.h) && packable(a.y) && packable(a.weight) && packable(a.sum) && packable(a.n);
  const bool walked = with_walk<T>(a.h, group, 2, packs, [&](auto n, int threads) {
    launch_walk("add_rms_norm", add_rms_norm_walk_kernel<T, n.value>, a, a.h, group, nullptr, 2,
                n.value, threads, stream_of(stream));
  });
  if (!walked)
    with_teams<T>(a.h, group, packs, [&](auto team, auto n, unsigned blocks) {
      add_rms_norm_kernel<T, team.value, n.value><<<blocks, kThreads, 0, stream_of(stream)>>>(a);
    });
  check_launch("add_rms_norm");
}

}  // namespace

STRATA_CUDA_KERNEL("add_rms_norm", AddRmsNormArgs, add_rms_norm_cuda)
STRATA_CUDA_HALF_KERNEL("add_rms_norm", AddRmsNormArgs, add_rms_norm_cuda)

}  // namespace strata
