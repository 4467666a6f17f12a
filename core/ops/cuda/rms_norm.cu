// rms_norm and layer_norm. A team of threads walks its group of a row twice, the second time out of
// the cache; the gradients of weight and bias are a pass of their own, over columns.
#include "core/ops/rms_norm.h"

#include "core/ops/cuda/norm.cuh"

namespace strata {
namespace {

// ------------------------------------------------------------------------------------- rms_norm
template <class T, int kTeam, int N>
__global__ void rms_norm_kernel(RmsNormArgs a) {
  const int64_t group = a.options.group;
  const Team<kTeam> team(a.x, group);
  if (team.idle) return;
  const T* x = a.x.row<T>(team.row) + team.at;
  T* y = a.y.row<T>(team.row) + team.at;
  T sum = 0;
  for (int64_t c = team.lane * N; c < group; c += kTeam * N) {
    const Pack<T, N> v = load_pack<N>(x + c);
#pragma unroll
    for (int e = 0; e < N; ++e) sum += v.v[e] * v.v[e];
  }
  const T inv = T(1) / sqrt_of(team.sum(sum) / T(group) + T(a.options.eps));
  if (team.lane == 0) a.inv.row<T>(team.row)[team.g] = inv;
  const T one = a.options.weight_plus_one ? 1 : 0;
  for (int64_t c = team.lane * N; c < group; c += kTeam * N) {
    Pack<T, N> v = load_pack<N>(x + c);
    const Pack<T, N> w = weights_at<N>(a.weight.ptr<T>(), team.at + c, one);
#pragma unroll
    for (int e = 0; e < N; ++e) v.v[e] = v.v[e] * inv * w.v[e];
    store_pack(y + c, v);
  }
}

template <class T>
void rms_norm_cuda(const RmsNormArgs& a, Stream stream) {
  const bool packs = packable(a.x) && packable(a.weight) && packable(a.y);
  with_teams<T>(a.x, a.options.group, packs, [&](auto team, auto n, unsigned blocks) {
    rms_norm_kernel<T, team.value, n.value><<<blocks, kThreads, 0, stream_of(stream)>>>(a);
  });
  check_launch("rms_norm");
}

// With n = x inv and u = dy w:  dx = inv (u - n mean(u n)),  dw = sum over rows of dy n.
template <class T, int kTeam, int N>
__global__ void rms_norm_dx_kernel(RmsNormBackwardArgs a) {
  const int64_t group = a.options.group;
  const Team<kTeam> team(a.x, group);
  if (team.idle) return;
  const T* x = a.x.row<T>(team.row) + team.at;
  const T* dy = a.dy.row<T>(team.row) + team.at;
  T* dx = a.dx.grad.row<T>(team.row) + team.at;
  const T one = a.options.weight_plus_one ? 1 : 0, inv = a.inv.row<T>(team.row)[team.g];
  T dot = 0;
  for (int64_t c = team.lane * N; c < group; c += kTeam * N) {
    const Pack<T, N> v = load_pack<N>(x + c), u = load_pack<N>(dy + c);
    const Pack<T, N> w = weights_at<N>(a.weight.ptr<T>(), team.at + c, one);
#pragma unroll
    for (int e = 0; e < N; ++e) dot += u.v[e] * w.v[e] * v.v[e];
  }
  const T pull = team.sum(dot) * inv * inv / T(group);
  for (int64_t c = team.lane * N; c < group; c += kTeam * N) {
    const Pack<T, N> v = load_pack<N>(x + c), u = load_pack<N>(dy + c);
    Pack<T, N> out = weights_at<N>(a.weight.ptr<T>(), team.at + c, one);
#pragma unroll
    for (int e = 0; e < N; ++e) out.v[e] = inv * (u.v[e] * out.v[e] - v.v[e] * pull);
    put_pack(dx + c, out, a.dx.accumulate);
  }
}

template <class T>
struct RmsNormWeightGradient {
  RmsNormBackwardArgs a;
  __device__ __forceinline__ void operator()(int64_t r, int64_t c, T (&sums)[1]) const {
    sums[0] += a.dy.row<T>(r)[c] * a.x.row<T>(r)[c] * a.inv.row<T>(r)[c / a.options.group];
  }
};

template <class T>
void rms_norm_backward_cuda(const RmsNormBackwardArgs& a, Stream stream) {
  const bool packs = packable(a.x) && packable(a.weight) && packable(a.dy) && packable(a.dx.grad);
  if (a.dx.wanted)
    with_teams<T>(a.x, a.options.group, packs, [&](auto team, auto n, unsigned blocks) {
      rms_norm_dx_kernel<T, team.value, n.value><<<blocks, kThreads, 0, stream_of(stream)>>>(a);
    });
  if (a.dweight.wanted) {
    column_sums<T, 1>(RmsNormWeightGradient<T>{a}, a.x, a.partial, stream_of(stream));
    sum_blocks<T>(a.dweight, a.partial, 0, stream_of(stream));
  }
  check_launch("rms_norm_backward");
}

// ----------------------------------------------------------------------------------- layer_norm
template <class T, int kTeam, int N>
__global__ void layer_norm_kernel(LayerNormArgs a) {
  const int64_t d = a.x.cols();
  const Team<kTeam> team(a.x, d);
  if (team.idle) return;
  const T* x = a.x.row<T>(team.row);
  T* y = a.y.row<T>(team.row);
  T sum = 0, square = 0;
  for (int64_t c = team.lane * N; c < d; c += kTeam * N) {
    const Pack<T, N> v = load_pack<N>(x + c);
#pragma unroll
    for (int e = 0; e < N; ++e) sum += v.v[e];
  }
  const T mean = team.sum(sum) / T(d);
  for (int64_t c = team.lane * N; c < d; c += kTeam * N) {
    const Pack<T, N> v = load_pack<N>(x + c);
#pragma unroll
    for (int e = 0; e < N; ++e) square += (v.v[e] - mean) * (v.v[e] - mean);
  }
  const T inv = T(1) / sqrt_of(team.sum(square) / T(d) + T(a.options.eps));
  if (team.lane == 0) {
    a.stats.row<T>(team.row)[0] = mean;
    a.stats.row<T>(team.row)[1] = inv;
  }
  const T one = a.options.weight_plus_one ? 1 : 0;
  const T* bias = a.bias.ptr<T>();
  for (int64_t c = team.lane * N; c < d; c += kTeam * N) {
    Pack<T, N> v = load_pack<N>(x + c);
    const Pack<T, N> w = weights_at<N>(a.weight.ptr<T>(), c, one);
#pragma unroll
    for (int e = 0; e < N; ++e) v.v[e] = (v.v[e] - mean) * inv * w.v[e];
    if (bias) {
      const Pack<T, N> b = load_pack<N>(bias + c);
#pragma unroll
      for (int e = 0; e < N; ++e) v.v[e] += b.v[e];
    }
    store_pack(y + c, v);
  }
}

template <class T>
void layer_norm_cuda(const LayerNormArgs& a, Stream stream) {
  const bool packs = packable(a.x) && packable(a.weight) && packable(a.bias) && packable(a.y);
  with_teams<T>(a.x, a.x.cols(), packs, [&](auto team, auto n, unsigned blocks) {
    layer_norm_kernel<T, team.value, n.value><<<blocks, kThreads, 0, stream_of(stream)>>>(a);
  });
  check_launch("layer_norm");
}

// With n = (x - mean) inv and u = dy w:  dx = inv (u - mean(u) - n mean(u n)).
template <class T, int kTeam, int N>
__global__ void layer_norm_dx_kernel(LayerNormBackwardArgs a) {
  const int64_t d = a.x.cols();
  const Team<kTeam> team(a.x, d);
  if (team.idle) return;
  const T *x = a.x.row<T>(team.row), *dy = a.dy.row<T>(team.row);
  T* dx = a.dx.grad.row<T>(team.row);
  const T mean = a.stats.row<T>(team.row)[0], inv = a.stats.row<T>(team.row)[1];
  const T one = a.options.weight_plus_one ? 1 : 0;
  T sum = 0, dot = 0;
  for (int64_t c = team.lane * N; c < d; c += kTeam * N) {
    const Pack<T, N> v = load_pack<N>(x + c), g = load_pack<N>(dy + c);
    const Pack<T, N> w = weights_at<N>(a.weight.ptr<T>(), c, one);
#pragma unroll
    for (int e = 0; e < N; ++e) {
      const T u = g.v[e] * w.v[e];
      sum += u;
      dot += u * (v.v[e] - mean);
    }
  }
  const T shift = team.sum(sum) / T(d), pull = team.sum(dot) * inv * inv / T(d);
  for (int64_t c = team.lane * N; c < d; c += kTeam * N) {
    const Pack<T, N> v = load_pack<N>(x + c), g = load_pack<N>(dy + c);
    Pack<T, N> out = weights_at<N>(a.weight.ptr<T>(), c, one);
#pragma unroll
    for (int e = 0; e < N; ++e)
      out.v[e] = inv * (g.v[e] * out.v[e] - shift - (v.v[e] - mean) * pull);
    put_pack(dx + c, out, a.dx.accumulate);
  }
}

template <class T>
struct LayerNormWeightGradient {
  LayerNormBackwardArgs a;
  __device__ __forceinline__ void operator()(int64_t r, int64_t c, T (&sums)[2]) const {
    const T dy = a.dy.row<T>(r)[c], *stats = a.stats.row<T>(r);
    sums[0] += dy * (a.x.row<T>(r)[c] - stats[0]) * stats[1];
    sums[1] += dy;
  }
};

template <class T>
void layer_norm_backward_cuda(const LayerNormBackwardArgs& a, Stream stream) {
  const bool packs = packable(a.x) && packable(a.weight) && packable(a.dy) && packable(a.dx.grad);
  if (a.dx.wanted)
    with_teams<T>(a.x, a.x.cols(), packs, [&](auto team, auto n, unsigned blocks) {
      layer_norm_dx_kernel<T, team.value, n.value><<<blocks, kThreads, 0, stream_of(stream)>>>(a);
    });
  if (a.dweight.wanted || a.dbias.wanted) {
    column_sums<T, 2>(LayerNormWeightGradient<T>{a}, a.x, a.partial, stream_of(stream));
    sum_blocks<T>(a.dweight, a.partial, 0, stream_of(stream));
    sum_blocks<T>(a.dbias, a.partial, a.x.cols(), stream_of(stream));
  }
  check_launch("layer_norm_backward");
}

}  // namespace

STRATA_CUDA_KERNEL("rms_norm", RmsNormArgs, rms_norm_cuda)
STRATA_CUDA_KERNEL("rms_norm_backward", RmsNormBackwardArgs, rms_norm_backward_cuda)
STRATA_CUDA_KERNEL("layer_norm", LayerNormArgs, layer_norm_cuda)
STRATA_CUDA_KERNEL("layer_norm_backward", LayerNormBackwardArgs, layer_norm_backward_cuda)

}  // namespace strata
