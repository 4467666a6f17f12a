// The weighted sum of what the experts return, and the load-balancing loss.
#include <cmath>

#include "core/kernels/expect.cuh"
#include "core/kernels/pack.cuh"
#include "core/ops/row_blocks.h"
#include "layers/moe/route.h"

namespace strata::moe {
namespace {

constexpr int kWarps = kThreads / kWarp;  // blockDim of kernels with a warp per row: 32, kWarps

// Whether all rows of width d can be moved 16 bytes at a time.
template <class T>
bool in_packs(int64_t d, std::initializer_list<const Tensor*> tensors) {
  bool packs = d % kPack<T> == 0;
  for (const Tensor* t : tensors) packs = packs && packable(*t);
  return packs;
}

// A block per token.
template <class T, int V>
__global__ void combine_kernel(CombineArgs a) {
  using A = Accum<T>;
  const int64_t t = blockIdx.x, d = a.x.cols();
  const int k = int(a.weights.cols());
  const A* w = a.weights.row<A>(t);
  const int32_t* row = a.row.row<int32_t>(t);
  T* y = a.y.row<T>(t);
  for (int64_t c = threadIdx.x * V; c < d; c += blockDim.x * V) {
    A sum[V] = {};
    for (int j = 0; j < k; ++j) {
      const Pack<T, V> x = load_pack<V>(a.x.row<T>(row[j]) + c);
#pragma unroll
      for (int i = 0; i < V; ++i) sum[i] += w[j] * wide(x[i]);
    }
    Pack<T, V> out;
#pragma unroll
    for (int i = 0; i < V; ++i) out[i] = narrow_to<T>(sum[i]);
    store_pack(y + c, out);
  }
}

template <class T>
void combine_cuda(const CombineArgs& a, Stream stream) {
  expect_accum<T>("moe_combine", "weights", a.weights);
  constexpr int V = kPack<T>;
  const int64_t d = a.x.cols();
  const bool packs = in_packs<T>(d, {&a.x, &a.y});
  const int64_t n = packs ? d / V : d,
                threads = n < kThreads ? (n + kWarp - 1) / kWarp * kWarp : kThreads;
  const auto kernel = packs ? combine_kernel<T, V> : combine_kernel<T, 1>;
  kernel<<<unsigned(a.y.rows()), unsigned(threads), 0, stream_of(stream)>>>(a);
  check_launch("moe_combine");
}

// A warp per choice (token, j); its row of x belongs to it alone.
template <class T, int V>
__global__ void combine_backward_kernel(CombineBackwardArgs a) {
  using A = Accum<T>;
  const int64_t d = a.x.cols(), k = a.weights.cols();
  const int64_t choice = int64_t(blockIdx.x) * kWarps + threadIdx.y, t = choice / k, j = choice % k;
  if (t >= a.dy.rows()) return;
  const int64_t r = a.row.row<int32_t>(t)[j];
  const T *dy = a.dy.row<T>(t), *x = a.x.row<T>(r);
  const A w = a.weights.row<A>(t)[j];
  T* dx = a.dx.wanted ? a.dx.grad.row<T>(r) : nullptr;
  A dot = 0;
#pragma unroll 4
  for (int64_t c = threadIdx.x * V; c < d; c += kWarp * V) {
    const Pack<T, V> g = load_pack<V>(dy + c), p = load_pack<V>(x + c);
#pragma unroll
    for (int i = 0; i < V; ++i) dot += wide(g[i]) * wide(p[i]);
    if (!dx) continue;
    Pack<T, V> out = {};
    if (a.dx.accumulate) out = load_pack<V>(dx + c);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const A value = w * wide(g[i]);
      out[i] = narrow_to<T>(a.dx.accumulate ? wide(out[i]) + value : value);
    }
    store_pack(dx + c, out);
  }
  if (!a.dweights.wanted) return;
  dot = warp_sum(dot);
  if (threadIdx.x == 0) put(a.dweights.grad.row<A>(t) + j, dot, a.dweights.accumulate);
}

template <class T>
void combine_backward_cuda(const CombineBackwardArgs& a, Stream stream) {
  expect_accum<T>("moe_combine_backward", "weights", a.weights);
  expect_accum<T>("moe_combine_backward", "weights", a.dweights.grad);
  const int64_t choices = a.dy.rows() * a.weights.cols();
  auto kernel = combine_backward_kernel<T, 1>;
  // One number at a time else, which keeps the order of the sums.
  if constexpr (is_half<T>)
    if (in_packs<T>(a.x.cols(), {&a.x, &a.dy, &a.dx.grad})) kernel = combine_backward_kernel<T, 8>;
  kernel<<<unsigned((choices + kWarps - 1) / kWarps), dim3(kWarp, kWarps), 0, stream_of(stream)>>>(
      a);
  check_launch("moe_combine_backward");
}

// What turns x (n,) into softmax probabilities, exp(x - largest) / sum, in every lane of a warp.
template <class T>
struct Softmax {
  const T* x;
  T largest, sum;
  __device__ __forceinline__ Softmax(const T* x, int n) : x(x), largest(-T(INFINITY)), sum(0) {
    for (int e = threadIdx.x; e < n; e += kWarp) largest = x[e] > largest ? x[e] : largest;
    largest = warp_max(largest);
    for (int e = threadIdx.x; e < n; e += kWarp) sum += exp_of(x[e] - largest);
    sum = warp_sum(sum);
  }
  __device__ __forceinline__ T at(int e) const { return exp_of(x[e] - largest) / sum; }
};

// chosen_e, a block per expert.
template <class T>
__global__ void chosen_kernel(BalanceArgs a) {
  __shared__ int32_t room[kWarps];
  const int expert = blockIdx.x;
  const int32_t* index = a.index.ptr<int32_t>();
  int32_t count = 0;
#pragma unroll 8
  for (int64_t i = threadIdx.x; i < a.index.numel(); i += blockDim.x) count += index[i] == expert;
  count = block_sum(count, room);
  if (threadIdx.x == 0) a.chosen.ptr<T>()[expert] = T(count) / T(a.logits.rows());
}

// Sums of probabilities over a block of rows: each warp sums every blockDim.y-th row, then the
// warps are added in order. Shared memory: (blockDim.y, n).
template <class T>
__global__ void partial_kernel(BalanceArgs a) {
  extern __shared__ __align__(16) char shared[];
  const int n = int(a.logits.cols());
  const RowBlocks blocks = row_blocks(a.logits.rows());
  T *all = reinterpret_cast<T*>(shared), *own = all + threadIdx.y * n;
  for (int e = threadIdx.x; e < n; e += kWarp) own[e] = T(0);
  for (int64_t t = blocks.begin(blockIdx.x) + threadIdx.y; t < blocks.end(blockIdx.x);
       t += blockDim.y) {
    const Softmax<T> p(a.logits.row<T>(t), n);
    for (int e = threadIdx.x; e < n; e += kWarp) own[e] += p.at(e);
  }
  __syncthreads();
  for (int e = threadIdx.y * kWarp + threadIdx.x; e < n; e += blockDim.y * kWarp) {
    T sum = 0;
    for (int w = 0; w < int(blockDim.y); ++w) sum += all[w * n + e];
    a.partial.row<T>(blockIdx.x)[e] = sum;
  }
}

// One block.
template <class T>
__global__ void loss_kernel(BalanceArgs a) {
  __shared__ T room[kWarps];
  const int64_t tokens = a.logits.rows(), n = a.logits.cols(), blocks = row_blocks(tokens).count;
  T loss = 0;
  for (int64_t e = threadIdx.x; e < n; e += blockDim.x) {
    T sum = 0;
    for (int64_t block = 0; block < blocks; ++block) sum += a.partial.row<T>(block)[e];
    loss += a.chosen.ptr<T>()[e] * sum;
  }
  loss = block_sum(loss, room);
  if (threadIdx.x == 0) *a.loss.ptr<T>() = T(n) * loss / T(tokens);
}

template <class T>
void balance_cuda(const BalanceArgs& a, Stream on) {
  const cudaStream_t stream = stream_of(on);
  const int64_t n = a.logits.cols(), row_bytes = n * int64_t(sizeof(T));
  chosen_kernel<T><<<unsigned(n), kThreads, 0, stream>>>(a);
  const int64_t fit = 48 * 1024 / row_bytes;  // warps whose sums fit
  const int64_t warps = fit < 1 ? 1 : fit > 16 ? 16 : fit;
  partial_kernel<T><<<unsigned(row_blocks(a.logits.rows()).count), dim3(kWarp, unsigned(warps)),
                      size_t(warps * row_bytes), stream>>>(a);
  loss_kernel<T><<<1, kThreads, 0, stream>>>(a);
  check_launch("moe_balance");
}

// A warp per token: dx_e = factor p_e (chosen_e - mean), mean = sum of p chosen.
template <class T>
__global__ void balance_backward_kernel(BalanceBackwardArgs a) {
  const int64_t tokens = a.logits.rows(), t = int64_t(blockIdx.x) * kWarps + threadIdx.y;
  const int n = int(a.logits.cols());
  if (t >= tokens) return;
  const T factor = *a.dloss.ptr<T>() * T(n) / T(tokens);
  const T* chosen = a.chosen.ptr<T>();
  const Softmax<T> p(a.logits.row<T>(t), n);
  T mean = 0;
  for (int e = threadIdx.x; e < n; e += kWarp) mean += p.at(e) * chosen[e];
  mean = warp_sum(mean);
  T* dx = a.dlogits.grad.row<T>(t);
  for (int e = threadIdx.x; e < n; e += kWarp)
    put(dx + e, factor * p.at(e) * (chosen[e] - mean), a.dlogits.accumulate);
}

template <class T>
void balance_backward_cuda(const BalanceBackwardArgs& a, Stream stream) {
  balance_backward_kernel<T><<<unsigned((a.logits.rows() + kWarps - 1) / kWarps),
                               dim3(kWarp, kWarps), 0, stream_of(stream)>>>(a);
  check_launch("moe_balance_backward");
}

}  // namespace

STRATA_CUDA_KERNEL("moe_combine", CombineArgs, combine_cuda)
STRATA_CUDA_HALF_KERNEL("moe_combine", CombineArgs, combine_cuda)
STRATA_CUDA_KERNEL("moe_combine_backward", CombineBackwardArgs, combine_backward_cuda)
STRATA_CUDA_BF16_KERNEL("moe_combine_backward", CombineBackwardArgs, combine_backward_cuda)
STRATA_CUDA_KERNEL("moe_balance", BalanceArgs, balance_cuda)
STRATA_CUDA_KERNEL("moe_balance_backward", BalanceBackwardArgs, balance_backward_cuda)

}  // namespace strata::moe
