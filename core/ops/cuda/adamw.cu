#include "core/ops/adamw.h"

#include <cmath>

#include "core/ops/cuda/elementwise.cuh"

namespace strata {
namespace {

template <class T>
struct AdamWStep {
  Tensor value, grad, m, v;
  T beta1, beta2, eps, clip, shrink, rate, root;

  template <int V>
  __device__ void run(int64_t r, int64_t c) const {
    Pack<T, V> w = load<T, V>(value, r, c), g = load<T, V>(grad, r, c);
    Pack<T, V> mean = load<T, V>(m, r, c), square = load<T, V>(v, r, c);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      g[i] *= clip;
      mean[i] = beta1 * mean[i] + (1 - beta1) * g[i];
      square[i] = beta2 * square[i] + (1 - beta2) * g[i] * g[i];
      w[i] = shrink * w[i] - rate * mean[i] / (sqrt_of(square[i]) * root + eps);
    }
    store(m, r, c, mean);
    store(v, r, c, square);
    store(value, r, c, w);
  }
};

template <class T>
void adamw_cuda(const AdamWArgs& a, Stream s) {
  const AdamWStep<T> step{a.value,
                          a.grad,
                          a.m,
                          a.v,
                          T(a.beta1),
                          T(a.beta2),
                          T(a.eps),
                          T(a.clip),
                          T(1 - a.lr * a.decay),
                          T(a.lr / a.correction1),
                          T(1 / std::sqrt(a.correction2))};
  each<T>("adamw", s, a.value.rows(), a.value.cols(), {&a.value, &a.grad, &a.m, &a.v}, step);
}

// partial[block] = the sum of squares of what the block walks; the last step adds them in order.
template <class T>
__global__ void squared_norm_kernel(SquaredNormArgs a, bool wide) {
  __shared__ double room[kWarp];
  constexpr int V = kPack<T>;
  const T* x = a.x.ptr<T>();
  const int64_t n = a.x.numel(), packs = wide ? n / V : 0;
  double sum = 0;
  STRATA_GRID_LOOP(i, packs) {
    const Pack<T, V> p = load<T, V>(x + i * V);
#pragma unroll
    for (int k = 0; k < V; ++k) sum += double(p[k]) * double(p[k]);
  }
  STRATA_GRID_LOOP(j, n - packs * V) {
    const double value = double(x[packs * V + j]);
    sum += value * value;
  }
  sum = block_sum(sum, room);
  if (threadIdx.x == 0) a.partial.ptr<double>()[blockIdx.x] = sum;
}

__global__ void add_partial_kernel(SquaredNormArgs a, int count) {
  __shared__ double room[kWarp];
  double sum = 0;
  for (int i = threadIdx.x; i < count; i += blockDim.x) sum += a.partial.ptr<double>()[i];
  sum = block_sum(sum, room);
  if (threadIdx.x == 0) *a.sum.ptr<double>() += sum;
}

template <class T>
void squared_norm_cuda(const SquaredNormArgs& a, Stream stream) {
  const int64_t n = a.x.numel();
  if (n == 0) return;
  const bool wide = reinterpret_cast<uintptr_t>(a.x.data) % 16 == 0;
  int blocks = blocks_for(n, 4 * kPack<T> * kThreads);
  if (blocks > kNormPartials) blocks = int(kNormPartials);
  squared_norm_kernel<T><<<blocks, kThreads, 0, stream_of(stream)>>>(a, wide);
  check_launch("squared_norm");
  add_partial_kernel<<<1, kThreads, 0, stream_of(stream)>>>(a, blocks);
  check_launch("squared_norm");
}

}  // namespace

STRATA_CUDA_KERNEL("adamw", AdamWArgs, adamw_cuda)
STRATA_CUDA_KERNEL("squared_norm", SquaredNormArgs, squared_norm_cuda)

}  // namespace strata
