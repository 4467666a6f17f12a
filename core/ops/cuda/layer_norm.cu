// layer_norm. How it goes over rows: see rms_norm.cu.
#include "core/kernels/expect.cuh"
#include "core/ops/cuda/row_walk.cuh"
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

template <class T, int kPacks>
__global__ void __launch_bounds__(kWalkThreads) layer_norm_walk_kernel(LayerNormArgs a) {
  using A = Accum<T>;
  constexpr int N = kPack<T>;
  RowWalk<T, 1, kPacks> walk(a.x, a.x.cols());
  walk.input(0, a.x);
  walk.start();
  A w[kPacks][N], b[kPacks][N] = {};
  walk_weights(walk, a.weight.ptr<A>(), a.options.weight_plus_one, w);
  if (a.bias) walk_weights(walk, a.bias.ptr<A>(), false, b);
  for (; !walk.done(); walk.step()) {
    walk.arrive();
    A sum = 0, square = 0;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      if (!walk.has(k)) continue;
      const auto v = walk.get(0, k);
#pragma unroll
      for (int e = 0; e < N; ++e) sum += v[e];
    }
    const A mean = walk.sum(sum) / A(a.x.cols());
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      if (!walk.has(k)) continue;
      const auto v = walk.get(0, k);
#pragma unroll
      for (int e = 0; e < N; ++e) square += (v[e] - mean) * (v[e] - mean);
    }
    const A inv = A(1) / sqrt_of(walk.sum(square) / A(a.x.cols()) + A(a.options.eps));
    if (threadIdx.x == 0) {
      a.stats.row<A>(walk.row)[0] = mean;
      a.stats.row<A>(walk.row)[1] = inv;
    }
    T* y = a.y.row<T>(walk.row);
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      if (!walk.has(k)) continue;
      auto v = walk.get(0, k);
#pragma unroll
      for (int e = 0; e < N; ++e) v[e] = (v[e] - mean) * inv * w[k][e] + b[k][e];
      store_pack(y + walk.column(k), narrow<T>(v));
    }
  }
}

template <class T>
void layer_norm_cuda(const LayerNormArgs& a, Stream stream) {
  expect_accum<T>("layer_norm", "the weight", a.weight);
  expect_accum<T>("layer_norm", "the bias", a.bias);
  const int64_t d = a.x.cols();
  const bool packs = packable(a.x) && packable(a.weight) && packable(a.bias) && packable(a.y);
  const bool walked = with_walk<T>(a.x, d, 1, packs, [&](auto n, int threads) {
    launch_walk("layer_norm", layer_norm_walk_kernel<T, n.value>, a, a.x, d, nullptr, 1, n.value,
                threads, stream_of(stream));
  });
  if (!walked)
    with_teams<T>(a.x, d, packs, [&](auto team, auto n, unsigned blocks) {
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
    put_accum(dx + c, out, a.dx.accumulate);
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

// kInputs: as rms_norm's.
template <class T, int kPacks, int kInputs>
__global__ void __launch_bounds__(kWalkThreads)
    layer_norm_backward_walk_kernel(LayerNormBackwardArgs a) {
  using A = Accum<T>;
  constexpr int N = kPack<T>;
  RowWalk<T, kInputs, kPacks> walk(a.x, a.x.cols());
  walk.input(0, a.x);
  walk.input(1, a.dy);
  if constexpr (kInputs == 3) walk.input(2, a.dx.grad);
  walk.start();
  A w[kPacks][N], dw[kPacks][N] = {}, db[kPacks][N] = {};
  walk_weights(walk, a.weight.ptr<A>(), a.options.weight_plus_one, w);
  A mean_next = a.stats.row<A>(walk.row)[0], inv_next = a.stats.row<A>(walk.row)[1];
  for (; !walk.done(); walk.step()) {
    const A mean = mean_next, inv = inv_next;
    if (walk.more()) {
      mean_next = a.stats.row<A>(walk.row + gridDim.y)[0];
      inv_next = a.stats.row<A>(walk.row + gridDim.y)[1];
    }
    walk.arrive();
    A sum = 0, dot = 0;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      if (!walk.has(k)) continue;
      const auto x = walk.get(0, k), dy = walk.get(1, k);
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const A product = dy[e] * (x[e] - mean);
        sum += dy[e] * w[k][e];
        dot += product * w[k][e];
        dw[k][e] += product * inv;
        db[k][e] += dy[e];
      }
    }
    if (!a.dx.wanted) continue;
    const A shift = walk.sum(sum) / A(a.x.cols());
    const A pull = walk.sum(dot) * inv * inv / A(a.x.cols());
    T* dx = a.dx.grad.row<T>(walk.row);
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      if (!walk.has(k)) continue;
      const auto x = walk.get(0, k);
      auto out = walk.get(1, k);
#pragma unroll
      for (int e = 0; e < N; ++e) out[e] = inv * (out[e] * w[k][e] - shift - (x[e] - mean) * pull);
      if constexpr (kInputs == 3) {
        const auto before = walk.get(2, k);
#pragma unroll
        for (int e = 0; e < N; ++e) out[e] += before[e];
      }
      store_pack(dx + walk.column(k), narrow<T>(out));
    }
  }
  if (!a.partial) return;
  walk_sums(walk, a.partial, 0, dw);
  walk_sums(walk, a.partial, a.x.cols(), db);
}

template <class T>
void layer_norm_backward_cuda(const LayerNormBackwardArgs& a, Stream stream) {
  using A = Accum<T>;
  constexpr const char* kOp = "layer_norm_backward";
  expect_accum<T>(kOp, "the weight", a.weight);
  const int64_t d = a.x.cols();
  const bool packs = packable(a.x) && packable(a.weight) && packable(a.dy) && packable(a.dx.grad) &&
                     packable(a.partial);
  const bool adds = a.dx.wanted && a.dx.accumulate;
  int64_t blocks = 0;
  const bool walked = with_walk<T>(a.x, d, adds ? 3 : 2, packs, [&](auto n, int threads) {
    const auto launch = [&](auto inputs) {
      blocks = launch_walk(kOp, layer_norm_backward_walk_kernel<T, n.value, inputs.value>, a, a.x,
                           d, &a.partial, inputs.value, n.value, threads, stream_of(stream));
    };
    if (adds)
      launch(std::integral_constant<int, 3>{});
    else
      launch(std::integral_constant<int, 2>{});
  });
  if (!walked) {
    if (a.dx.wanted)
      with_teams<T>(a.x, d, packs, [&](auto team, auto n, unsigned teams) {
        layer_norm_dx_kernel<T, team.value, n.value><<<teams, kThreads, 0, stream_of(stream)>>>(a);
      });
    if (a.dweight.wanted || a.dbias.wanted)
      blocks = column_sums<A, 2>(LayerNormWeightGradient<T>{a}, a.x, a.partial, stream_of(stream));
  }
  sum_blocks<A>(kOp, a.dweight, a.partial, blocks, 0, stream_of(stream));
  sum_blocks<A>(kOp, a.dbias, a.partial, blocks, d, stream_of(stream));
  check_launch(kOp);
}

}  // namespace

STRATA_CUDA_KERNEL("layer_norm", LayerNormArgs, layer_norm_cuda)
STRATA_CUDA_HALF_KERNEL("layer_norm", LayerNormArgs, layer_norm_cuda)
STRATA_CUDA_KERNEL("layer_norm_backward", LayerNormBackwardArgs, layer_norm_backward_cuda)
STRATA_CUDA_BF16_KERNEL("layer_norm_backward", LayerNormBackwardArgs, layer_norm_backward_cuda)

}  // namespace strata
