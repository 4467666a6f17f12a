// gated_rms_norm: rms(x silu(z)) w, or rms(x) w silu(z).
#include "core/ops/cuda/norm.cuh"
#include "core/ops/rms_norm.h"

namespace strata {
namespace {

template <class T, int kTeam, int N>
__global__ void gated_rms_norm_kernel(GatedRmsNormArgs a) {
  const int64_t group = a.options.group;
  const Team<kTeam> team(a.x, group);
  if (team.idle) return;
  const T* x = a.x.row<T>(team.row) + team.at;
  const T* z = a.z.row<T>(team.row) + team.at;
  T* y = a.y.row<T>(team.row) + team.at;
  T sum = 0;
  for (int64_t c = team.lane * N; c < group; c += kTeam * N) {
    Pack<T, N> v = load_pack<N>(x + c);
    if (!a.norm_before_gate) {
      const Pack<T, N> gate = load_pack<N>(z + c);
#pragma unroll
      for (int e = 0; e < N; ++e) v.v[e] *= gate.v[e] * sigmoid_of(gate.v[e]);
    }
#pragma unroll
    for (int e = 0; e < N; ++e) sum += v.v[e] * v.v[e];
  }
  const T inv = T(1) / sqrt_of(team.sum(sum) / T(group) + T(a.options.eps));
  if (team.lane == 0) a.inv.row<T>(team.row)[team.g] = inv;
  const T one = a.options.weight_plus_one ? 1 : 0;
  for (int64_t c = team.lane * N; c < group; c += kTeam * N) {
    Pack<T, N> v = load_pack<N>(x + c);
    const Pack<T, N> gate = load_pack<N>(z + c);
    const Pack<T, N> w = weights_at<N>(a.weight.ptr<T>(), team.at + c, one);
#pragma unroll
    for (int e = 0; e < N; ++e)
      v.v[e] = gate.v[e] * sigmoid_of(gate.v[e]) * (v.v[e] * inv * w.v[e]);
    store_pack(y + c, v);
  }
}

template <class T>
void gated_rms_norm_cuda(const GatedRmsNormArgs& a, Stream stream) {
  const bool packs = packable(a.x) && packable(a.z) && packable(a.weight) && packable(a.y);
  with_teams<T>(a.x, a.options.group, packs, [&](auto team, auto n, unsigned blocks) {
    gated_rms_norm_kernel<T, team.value, n.value><<<blocks, kThreads, 0, stream_of(stream)>>>(a);
  });
  check_launch("gated_rms_norm");
}

// Both orders have y = x s inv w with s = silu(z); they differ in what inv normalises: v = x s or
// v = x. With u = dy w and p = inv^2 mean(u x s):
//   dx = inv (s u - p v dv/dx),   ds = inv (x u - p v dv/ds),   dw = sum over rows of dy x s inv.
template <class T, int kTeam, int N>
__global__ void gated_rms_norm_dx_kernel(GatedRmsNormBackwardArgs a) {
  const int64_t group = a.options.group;
  const Team<kTeam> team(a.x, group);
  if (team.idle) return;
  const T* x = a.x.row<T>(team.row) + team.at;
  const T* z = a.z.row<T>(team.row) + team.at;
  const T* dy = a.dy.row<T>(team.row) + team.at;
  const T one = a.options.weight_plus_one ? 1 : 0, inv = a.inv.row<T>(team.row)[team.g];
  T dot = 0;
  for (int64_t c = team.lane * N; c < group; c += kTeam * N) {
    const Pack<T, N> v = load_pack<N>(x + c), gate = load_pack<N>(z + c), u = load_pack<N>(dy + c);
    const Pack<T, N> w = weights_at<N>(a.weight.ptr<T>(), team.at + c, one);
#pragma unroll
    for (int e = 0; e < N; ++e) dot += u.v[e] * w.v[e] * v.v[e] * gate.v[e] * sigmoid_of(gate.v[e]);
  }
  const T pull = team.sum(dot) * inv * inv / T(group);
  for (int64_t c = team.lane * N; c < group; c += kTeam * N) {
    const Pack<T, N> v = load_pack<N>(x + c), gate = load_pack<N>(z + c), g = load_pack<N>(dy + c);
    const Pack<T, N> w = weights_at<N>(a.weight.ptr<T>(), team.at + c, one);
    Pack<T, N> dx, dz;
#pragma unroll
    for (int e = 0; e < N; ++e) {
      const T sig = sigmoid_of(gate.v[e]), s = gate.v[e] * sig, u = g.v[e] * w.v[e];
      const T by_x = a.norm_before_gate ? v.v[e] : v.v[e] * s * s;
      const T by_s = a.norm_before_gate ? T(0) : v.v[e] * v.v[e] * s;
      dx.v[e] = inv * (u * s - pull * by_x);
      dz.v[e] = inv * (u * v.v[e] - pull * by_s) * sig * (1 + gate.v[e] * (1 - sig));
    }
    if (a.dx.wanted) put_pack(a.dx.grad.row<T>(team.row) + team.at + c, dx, a.dx.accumulate);
    if (a.dz.wanted) put_pack(a.dz.grad.row<T>(team.row) + team.at + c, dz, a.dz.accumulate);
  }
}

template <class T>
struct GatedRmsNormWeightGradient {
  GatedRmsNormBackwardArgs a;
  __device__ __forceinline__ void operator()(int64_t r, int64_t c, T (&sums)[1]) const {
    const T z = a.z.row<T>(r)[c];
    sums[0] += a.dy.row<T>(r)[c] * a.x.row<T>(r)[c] * z * sigmoid_of(z) *
               a.inv.row<T>(r)[c / a.options.group];
  }
};

template <class T>
void gated_rms_norm_backward_cuda(const GatedRmsNormBackwardArgs& a, Stream stream) {
  const bool packs = packable(a.x) && packable(a.z) && packable(a.weight) && packable(a.dy) &&
                     packable(a.dx.grad) && packable(a.dz.grad);
  if (a.dx.wanted || a.dz.wanted)
    with_teams<T>(a.x, a.options.group, packs, [&](auto team, auto n, unsigned blocks) {
      gated_rms_norm_dx_kernel<T, team.value, n.value>
          <<<blocks, kThreads, 0, stream_of(stream)>>>(a);
    });
  if (a.dweight.wanted) {
    column_sums<T, 1>(GatedRmsNormWeightGradient<T>{a}, a.x, a.partial, stream_of(stream));
    sum_blocks<T>(a.dweight, a.partial, 0, stream_of(stream));
  }
  check_launch("gated_rms_norm_backward");
}

}  // namespace

STRATA_CUDA_KERNEL("gated_rms_norm", GatedRmsNormArgs, gated_rms_norm_cuda)
STRATA_CUDA_KERNEL("gated_rms_norm_backward", GatedRmsNormBackwardArgs,
                   gated_rms_norm_backward_cuda)

}  // namespace strata
