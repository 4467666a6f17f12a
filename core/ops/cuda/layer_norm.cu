// layer_norm. A team of threads walks its row three times, all but the first out of the cache; the
// gradients of weight and bias are a pass of their own, over columns.
#include "core/ops/cuda/norm.cuh"
#include "core/ops/rms_norm.h"

namespace strata {
namespace {

template <class T, int kTeam, int N>
__global__ void layer_norm_kernel(LayerNormArgs a) {
  using A = Accum<T>;
  const int64_t d = a.x.cols();
  const Team<kTeam> team(a.x, d);
  if (team.idle) return;
  const T* x = a.x.row<T>(team.row);
  T* y = a.y.row<T>(team.row);
  A sum = 0, square = 0;
  for (int64_t c = team.lane * N; c < d; c += kTeam * N) {
    const Pack<A, N> v = widen(load_pack<N>(x + c));
#pragma unroll
    for (int e = 0; e < N; ++e) sum += v.v[e];
  }
  const A mean = team.sum(sum) / A(d);
  for (int64_t c = team.lane * N; c < d; c += kTeam * N) {
    const Pack<A, N> v = widen(load_pack<N>(x + c));
#pragma unroll
    for (int e = 0; e < N; ++e) square += (v.v[e] - mean) * (v.v[e] - mean);
  }
  const A inv = A(1) / sqrt_of(team.sum(square) / A(d) + A(a.options.eps));
  if (team.lane == 0) {
    a.stats.row<A>(team.row)[0] = mean;
    a.stats.row<A>(team.row)[1] = inv;
  }
  const A one = a.options.weight_plus_one ? 1 : 0;
  const A* bias = a.bias.ptr<A>();
  for (int64_t c = team.lane * N; c < d; c += kTeam * N) {
    Pack<A, N> v = widen(load_pack<N>(x + c));
    const Pack<A, N> w = weights_at<N>(a.weight.ptr<A>(), c, one);
#pragma unroll
    for (int e = 0; e < N; ++e) v.v[e] = (v.v[e] - mean) * inv * w.v[e];
    if (bias) {
      const Pack<A, N> b = load_pack<N>(bias + c);
#pragma unroll
      for (int e = 0; e < N; ++e) v.v[e] += b.v[e];
    }
    store_pack(y + c, narrow<T>(v));
  }
}

template <class T>
void layer_norm_cuda(const LayerNormArgs& a, Stream stream) {
  expect_accum<T>("layer_norm", "weight", a.weight);
  expect_accum<T>("layer_norm", "bias", a.bias);
  const bool packs = packable(a.x) && packable(a.weight) && packable(a.bias) && packable(a.y);
  with_teams<T>(a.x, a.x.cols(), packs, [&](auto team, auto n, unsigned blocks) {
    layer_norm_kernel<T, team.value, n.value><<<blocks, kThreads, 0, stream_of(stream)>>>(a);
  });
  check_launch("layer_norm");
}

// With n = (x - mean) inv and u = dy w:  dx = inv (u - mean(u) - n mean(u n)).
template <class T, int kTeam, int N>
__global__ void layer_norm_dx_kernel(LayerNormBackwardArgs a) {
  using A = Accum<T>;
  const int64_t d = a.x.cols();
  const Team<kTeam> team(a.x, d);
  if (team.idle) return;
  const T *x = a.x.row<T>(team.row), *dy = a.dy.row<T>(team.row);
  T* dx = a.dx.grad.row<T>(team.row);
  const A mean = a.stats.row<A>(team.row)[0], inv = a.stats.row<A>(team.row)[1];
  const A one = a.options.weight_plus_one ? 1 : 0;
  A sum = 0, dot = 0;
  for (int64_t c = team.lane * N; c < d; c += kTeam * N) {
    const Pack<A, N> v = widen(load_pack<N>(x + c)), g = widen(load_pack<N>(dy + c));
    const Pack<A, N> w = weights_at<N>(a.weight.ptr<A>(), c, one);
#pragma unroll
    for (int e = 0; e < N; ++e) {
      const A u = g.v[e] * w.v[e];
      sum += u;
      dot += u * (v.v[e] - mean);
    }
  }
  const A shift = team.sum(sum) / A(d), pull = team.sum(dot) * inv * inv / A(d);
  for (int64_t c = team.lane * N; c < d; c += kTeam * N) {
    const Pack<A, N> v = widen(load_pack<N>(x + c)), g = widen(load_pack<N>(dy + c));
    Pack<A, N> out = weights_at<N>(a.weight.ptr<A>(), c, one);
#pragma unroll
    for (int e = 0; e < N; ++e)
      out.v[e] = inv * (g.v[e] * out.v[e] - shift - (v.v[e] - mean) * pull);
    put_wide(dx + c, out, a.dx.accumulate);
  }
}

template <class T>
struct LayerNormWeightGradient {
  LayerNormBackwardArgs a;
  __device__ __forceinline__ void operator()(int64_t r, int64_t c, Accum<T> (&sums)[2]) const {
    const Accum<T> dy = wide(a.dy.row<T>(r)[c]), *stats = a.stats.row<Accum<T>>(r);
    sums[0] += dy * (wide(a.x.row<T>(r)[c]) - stats[0]) * stats[1];
    sums[1] += dy;
  }
};

template <class T>
void layer_norm_backward_cuda(const LayerNormBackwardArgs& a, Stream stream) {
  using A = Accum<T>;
  expect_accum<T>("layer_norm_backward", "weight", a.weight);
  const bool packs = packable(a.x) && packable(a.weight) && packable(a.dy) && packable(a.dx.grad);
  if (a.dx.wanted)
    with_teams<T>(a.x, a.x.cols(), packs, [&](auto team, auto n, unsigned blocks) {
      layer_norm_dx_kernel<T, team.value, n.value><<<blocks, kThreads, 0, stream_of(stream)>>>(a);
    });
  if (a.dweight.wanted || a.dbias.wanted) {
    const int64_t blocks =
        column_sums<A, 2>(LayerNormWeightGradient<T>{a}, a.x, a.partial, stream_of(stream));
    sum_blocks<A>("layer_norm_backward", a.dweight, a.partial, blocks, 0, stream_of(stream));
    sum_blocks<A>("layer_norm_backward", a.dbias, a.partial, blocks, a.x.cols(), stream_of(stream));
  }
  check_launch("layer_norm_backward");
}

}  // namespace

STRATA_CUDA_KERNEL("layer_norm", LayerNormArgs, layer_norm_cuda)
STRATA_CUDA_HALF_KERNEL("layer_norm", LayerNormArgs, layer_norm_cuda)
STRATA_CUDA_KERNEL("layer_norm_backward", LayerNormBackwardArgs, layer_norm_backward_cuda)
STRATA_CUDA_BF16_KERNEL("layer_norm_backward", LayerNormBackwardArgs, layer_norm_backward_cuda)

}  // namespace strata
