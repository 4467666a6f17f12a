#include "core/ops/adamw.h"

#include <cmath>

#include "core/ops/cuda/elementwise.cuh"

namespace strata {
namespace {

// V numbers of a piece from k on.
template <class T, int V>
__device__ __forceinline__ void adamw_pack(const AdamWPiece& piece, int k, T b1, T b2, T eps,
                                           T clip, T root, T shrink, T rate) {
  T* exact = static_cast<T*>(piece.master ? piece.master : piece.value) + k;
  T *m_at = static_cast<T*>(piece.m) + k, *v_at = static_cast<T*>(piece.v) + k;
  Pack<T, V> w = load_pack<V>(exact), m = load_pack<V>(m_at), v = load_pack<V>(v_at);
  Pack<T, V> g = load_pack<V>(static_cast<const T*>(piece.grad) + k);
#pragma unroll
  for (int i = 0; i < V; ++i) {
    g[i] *= clip;
    m[i] = b1 * m[i] + (1 - b1) * g[i];
    v[i] = b2 * v[i] + (1 - b2) * g[i] * g[i];
    w[i] = shrink * w[i] - rate * m[i] / (sqrt_of(v[i]) * root + eps);
  }
  store_pack(m_at, m);
  store_pack(v_at, v);
  store_pack(exact, w);
  if (piece.value_dtype == DType::bf16)
    store_pack(static_cast<bf16*>(piece.value) + k, narrow<bf16>(w));
}

template <class T>
__global__ void __launch_bounds__(kThreads) adamw_kernel(AdamWArgs a) {
  const StepScalars step = *a.scalars;
  if (step.apply == 0) return;
  const AdamWPiece piece = a.pieces[blockIdx.x];
  const double lr = step.lr * piece.lr_scale;
  const T b1 = T(a.beta1), b2 = T(a.beta2), eps = T(a.eps), clip = T(step.clip);
  const T root = T(1 / sqrt(step.correction2));
  const T shrink = T(1 - lr * piece.decay), rate = T(lr / step.correction1);
  constexpr int V = kPack<T>;
  const int packs = piece.count / V;
  for (int i = threadIdx.x; i < packs; i += kThreads)
    adamw_pack<T, V>(piece, i * V, b1, b2, eps, clip, root, shrink, rate);
  for (int k = packs * V + threadIdx.x; k < piece.count; k += kThreads)
    adamw_pack<T, 1>(piece, k, b1, b2, eps, clip, root, shrink, rate);
}

template <class T>
void adamw_cuda(const AdamWArgs& a, Stream s) {
  if (a.count == 0) return;
  adamw_kernel<T><<<unsigned(a.count), kThreads, 0, stream_of(s)>>>(a);
  check_launch("adamw");
}

__global__ void settle_step_kernel(SettleStepArgs a) {
  StepScalars& s = *a.scalars;
  s.norm = sqrt(s.squares);
  s.clip = s.max_norm > 0 ? fmin(1.0, s.max_norm / (s.norm + 1e-6)) : 1.0;
  const double loss = a.loss.present ? *a.loss.ptr<double>() : 0;
  s.apply = isfinite(s.norm) && isfinite(loss) ? 1 : 0;
}

void settle_step_cuda(const SettleStepArgs& a, Stream s) {
  settle_step_kernel<<<1, 1, 0, stream_of(s)>>>(a);
  check_launch("settle_step");
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
    const Pack<T, V> p = load_pack<V>(x + i * V);
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
STRATA_KERNEL("settle_step", DeviceKind::cuda, DType::f64, SettleStepArgs, settle_step_cuda)

}  // namespace strata
