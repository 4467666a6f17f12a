// gated_rms_norm: rms(x silu(z)) w, or rms(x) w silu(z). How it goes over rows: see rms_norm.cu.
#include "core/kernels/expect.cuh"
#include "core/ops/cuda/row_walk.cuh"
#include "core/ops/rms_norm.h"

namespace strata {
namespace {

template <class T, int kTeam, int N>
__global__ void gated_rms_norm_kernel(GatedRmsNormArgs a) {
  using A = Accum<T>;
  const int64_t group = a.options.group;
  const Team<kTeam> team(a.x, group);
  if (team.idle) return;
  const T* x = a.x.row<T>(team.row) + team.at;
  const T* z = a.z.row<T>(team.row) + team.at;
  T* y = a.y.row<T>(team.row) + team.at;
  A sum = 0;
  for (int64_t c = team.lane * N; c < group; c += kTeam * N) {
    Pack<A, N> v = widen(load_pack<N>(x + c));
    if (!a.norm_before_gate) {
      const Pack<A, N> gate = widen(load_pack<N>(z + c));
#pragma unroll
      for (int e = 0; e < N; ++e) v.v[e] *= gate.v[e] * sigmoid_for<T>(gate.v[e]);
    }
#pragma unroll
    for (int e = 0; e < N; ++e) sum += v.v[e] * v.v[e];
  }
  const A inv = A(1) / sqrt_of(team.sum(sum) / A(group) + A(a.options.eps));
  if (team.lane == 0) a.inv.row<A>(team.row)[team.g] = inv;
  const A one = a.options.weight_plus_one ? 1 : 0;
  for (int64_t c = team.lane * N; c < group; c += kTeam * N) {
    Pack<A, N> v = widen(load_pack<N>(x + c));
    const Pack<A, N> gate = widen(load_pack<N>(z + c));
    const Pack<A, N> w = weights_at<N>(a.weight.ptr<A>(), team.at + c, one);
#pragma unroll
    for (int e = 0; e < N; ++e)
      v.v[e] = gate.v[e] * sigmoid_for<T>(gate.v[e]) * (v.v[e] * inv * w.v[e]);
    store_pack(y + c, narrow<T>(v));
  }
}

template <class T, int kPacks, bool kNormFirst>
__global__ void __launch_bounds__(kWalkThreads) gated_rms_norm_walk_kernel(GatedRmsNormArgs a) {
  using A = Accum<T>;
  constexpr int N = kPack<T>;
  RowWalk<T, 2, kPacks> walk(a.x, a.options.group);
  walk.input(0, a.x);
  walk.input(1, a.z);
  walk.start();
  A w[kPacks][N];
  walk_weights(walk, a.weight.ptr<A>(), a.options.weight_plus_one, w);
  for (; !walk.done(); walk.step()) {
    walk.arrive();
    A v[kPacks][N], sum = 0;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      if (!walk.has(k)) continue;
      const auto x = walk.get(0, k), z = walk.get(1, k);
#pragma unroll
      for (int e = 0; e < N; ++e) {
        v[k][e] = x[e] * z[e] * sigmoid_for<T>(z[e]);
        const A normed = kNormFirst ? x[e] : v[k][e];
        sum += normed * normed;
      }
    }
    const A inv = A(1) / sqrt_of(walk.sum(sum) / A(a.options.group) + A(a.options.eps));
    if (threadIdx.x == 0) a.inv.row<A>(walk.row)[blockIdx.x] = inv;
    T* y = a.y.row<T>(walk.row) + walk.at;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      if (!walk.has(k)) continue;
      Pack<A, N> out;
#pragma unroll
      for (int e = 0; e < N; ++e) out[e] = v[k][e] * inv * w[k][e];
      store_pack(y + walk.column(k), narrow<T>(out));
    }
  }
}

template <class T>
void gated_rms_norm_cuda(const GatedRmsNormArgs& a, Stream stream) {
  expect_accum<T>("gated_rms_norm", "the weight", a.weight);
  const int64_t group = a.options.group;
  const bool packs = packable(a.x) && packable(a.z) && packable(a.weight) && packable(a.y);
  const bool walked = with_walk<T>(a.x, group, 2, packs, [&](auto n, int threads) {
    launch_walk("gated_rms_norm",
                a.norm_before_gate ? gated_rms_norm_walk_kernel<T, n.value, true>
                                   : gated_rms_norm_walk_kernel<T, n.value, false>,
                a, a.x, group, nullptr, 2, n.value, threads, stream_of(stream));
  });
  if (!walked)
    with_teams<T>(a.x, group, packs, [&](auto team, auto n, unsigned blocks) {
      gated_rms_norm_kernel<T, team.value, n.value><<<blocks, kThreads, 0, stream_of(stream)>>>(a);
    });
  check_launch("gated_rms_norm");
}

// Both orders have y = x s inv w with s = silu(z); they differ in what inv normalises: v = x s or
// v = x. With u = dy w and p = inv^2 mean(u x s):
//   dx = inv (s u - p v dv/dx),   ds = inv (x u - p v dv/ds),   dw = sum over rows of dy x s inv.
template <class T, int kTeam, int N>
__global__ void gated_rms_norm_dx_kernel(GatedRmsNormBackwardArgs a) {
  using A = Accum<T>;
  const int64_t group = a.options.group;
  const Team<kTeam> team(a.x, group);
  if (team.idle) return;
  const T* x = a.x.row<T>(team.row) + team.at;
  const T* z = a.z.row<T>(team.row) + team.at;
  const T* dy = a.dy.row<T>(team.row) + team.at;
  const A one = a.options.weight_plus_one ? 1 : 0, inv = a.inv.row<A>(team.row)[team.g];
  A dot = 0;
  for (int64_t c = team.lane * N; c < group; c += kTeam * N) {
    const Pack<A, N> v = widen(load_pack<N>(x + c)), gate = widen(load_pack<N>(z + c)),
                     u = widen(load_pack<N>(dy + c));
    const Pack<A, N> w = weights_at<N>(a.weight.ptr<A>(), team.at + c, one);
#pragma unroll
    for (int e = 0; e < N; ++e)
      dot += u.v[e] * w.v[e] * v.v[e] * gate.v[e] * sigmoid_for<T>(gate.v[e]);
  }
  const A pull = team.sum(dot) * inv * inv / A(group);
  for (int64_t c = team.lane * N; c < group; c += kTeam * N) {
    const Pack<A, N> v = widen(load_pack<N>(x + c)), gate = widen(load_pack<N>(z + c)),
                     g = widen(load_pack<N>(dy + c));
    const Pack<A, N> w = weights_at<N>(a.weight.ptr<A>(), team.at + c, one);
    Pack<A, N> dx, dz;
#pragma unroll
    for (int e = 0; e < N; ++e) {
      const A sig = sigmoid_for<T>(gate.v[e]), s = gate.v[e] * sig, u = g.v[e] * w.v[e];
      const A by_x = a.norm_before_gate ? v.v[e] : v.v[e] * s * s;
      const A by_s = a.norm_before_gate ? A(0) : v.v[e] * v.v[e] * s;
      dx.v[e] = inv * (u * s - pull * by_x);
      dz.v[e] = inv * (u * v.v[e] - pull * by_s) * sig * (1 + gate.v[e] * (1 - sig));
    }
    if (a.dx.wanted) put_accum(a.dx.grad.row<T>(team.row) + team.at + c, dx, a.dx.accumulate);
    if (a.dz.wanted) put_accum(a.dz.grad.row<T>(team.row) + team.at + c, dz, a.dz.accumulate);
  }
}

template <class T>
struct GatedRmsNormWeightGradient {
  GatedRmsNormBackwardArgs a;
  __device__ __forceinline__ void operator()(int64_t r, int64_t c, Accum<T> (&sums)[1]) const {
    const Accum<T> z = wide(a.z.row<T>(r)[c]);
    sums[0] += wide(a.dy.row<T>(r)[c]) * wide(a.x.row<T>(r)[c]) * z * sigmoid_for<T>(z) *
               a.inv.row<Accum<T>>(r)[c / a.options.group];
  }
};

template <class T, int kPacks, bool kNormFirst>
__global__ void __launch_bounds__(kWalkThreads)
    gated_rms_norm_backward_walk_kernel(GatedRmsNormBackwardArgs a) {
  using A = Accum<T>;
  constexpr int N = kPack<T>;
  RowWalk<T, 3, kPacks> walk(a.x, a.options.group);
  walk.input(0, a.x);
  walk.input(1, a.z);
  walk.input(2, a.dy);
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
      const auto x = walk.get(0, k), z = walk.get(1, k), dy = walk.get(2, k);
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const A product = dy[e] * x[e] * z[e] * sigmoid_for<T>(z[e]);
        dot += product * w[k][e];
        dw[k][e] += product * inv;
      }
    }
    const A pull = walk.sum(dot) * inv * inv / A(a.options.group);
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      if (!walk.has(k)) continue;
      const auto x = walk.get(0, k), z = walk.get(1, k), dy = walk.get(2, k);
      Pack<A, N> dx, dz;
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const A sig = sigmoid_for<T>(z[e]), s = z[e] * sig, u = dy[e] * w[k][e];
        const A slope = sig * (1 + z[e] - s);  // of silu
        if constexpr (kNormFirst) {
          dx[e] = inv * (u * s - pull * x[e]);
          dz[e] = inv * u * x[e] * slope;
        } else {
          const A both = inv * (u - pull * x[e] * s);
          dx[e] = both * s;
          dz[e] = both * x[e] * slope;
        }
      }
      const int64_t c = walk.at + walk.column(k);
      if (a.dx.wanted) put_accum(a.dx.grad.row<T>(walk.row) + c, dx, a.dx.accumulate);
      if (a.dz.wanted) put_accum(a.dz.grad.row<T>(walk.row) + c, dz, a.dz.accumulate);
    }
  }
  if (a.partial) walk_sums(walk, a.partial, 0, dw);
}

template <class T>
void gated_rms_norm_backward_cuda(const GatedRmsNormBackwardArgs& a, Stream stream) {
  using A = Accum<T>;
  constexpr const char* kOp = "gated_rms_norm_backward";
  expect_accum<T>(kOp, "the weight", a.weight);
  const int64_t group = a.options.group;
  const bool packs = packable(a.x) && packable(a.z) && packable(a.weight) && packable(a.dy) &&
                     packable(a.dx.grad) && packable(a.dz.grad) && packable(a.partial);
  int64_t blocks = 0;
  const bool walked = with_walk<T>(a.x, group, 3, packs, [&](auto n, int threads) {
    blocks =
        launch_walk(kOp,
                    a.norm_before_gate ? gated_rms_norm_backward_walk_kernel<T, n.value, true>
                                       : gated_rms_norm_backward_walk_kernel<T, n.value, false>,
                    a, a.x, group, &a.partial, 3, n.value, threads, stream_of(stream));
  });
  if (!walked) {
    if (a.dx.wanted || a.dz.wanted)
      with_teams<T>(a.x, group, packs, [&](auto team, auto n, unsigned teams) {
        gated_rms_norm_dx_kernel<T, team.value, n.value>
            <<<teams, kThreads, 0, stream_of(stream)>>>(a);
      });
    if (a.dweight.wanted)
      blocks =
          column_sums<A, 1>(GatedRmsNormWeightGradient<T>{a}, a.x, a.partial, stream_of(stream));
  }
  sum_blocks<A>(kOp, a.dweight, a.partial, blocks, 0, stream_of(stream));
  check_launch(kOp);
}

}  // namespace

STRATA_CUDA_KERNEL("gated_rms_norm", GatedRmsNormArgs, gated_rms_norm_cuda)
STRATA_CUDA_HALF_KERNEL("gated_rms_norm", GatedRmsNormArgs, gated_rms_norm_cuda)
STRATA_CUDA_KERNEL("gated_rms_norm_backward", GatedRmsNormBackwardArgs,
                   gated_rms_norm_backward_cuda)
STRATA_CUDA_BF16_KERNEL("gated_rms_norm_backward", GatedRmsNormBackwardArgs,
                        gated_rms_norm_backward_cuda)

}  // namespace strata
