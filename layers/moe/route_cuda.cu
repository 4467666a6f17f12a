// Choice of experts and sorting by expert. A warp takes a token; lane l has the experts l, l + 32,
// ...
#include <cmath>

#include "core/kernels/device.cuh"
#include "layers/moe/route.h"

namespace strata::moe {
namespace {

constexpr int kTokens = 4;         // per block
constexpr double kTiny = 1e-20;    // added to the sum of chosen scores
constexpr int kMaxExperts = 1024;  // a lane's 32 experts fit the bits of a word

// The order of choice: numbers before NaN, then the larger, then the lower index; -1 is last.
template <class T>
__device__ __forceinline__ bool better(T x, int i, T y, int j) {
  if (i < 0 || j < 0) return j < 0 && i >= 0;
  const bool x_nan = x != x, y_nan = y != y;
  if (x_nan || y_nan) return x_nan == y_nan ? i < j : y_nan;
  return x == y ? i < j : x > y;
}

// Calls chosen(j, e) on all lanes for the k best of value(e), e < n <= 1024, best first.
template <class T, class V, class F>
__device__ __forceinline__ void choose(int n, int k, const V& value, const F& chosen) {
  const int lane = threadIdx.x;
  uint32_t taken = 0;  // bit i: this lane's i-th
  for (int j = 0; j < k; ++j) {
    T highest = 0;
    int best = -1;
    for (int e = lane; e < n; e += kWarp)
      if (!(taken >> (e / kWarp) & 1) && better(value(e), e, highest, best))
        highest = value(e), best = e;
    for (int offset = kWarp / 2; offset > 0; offset /= 2) {
      const T other = __shfl_xor_sync(kAllLanes, highest, offset);
      const int at = __shfl_xor_sync(kAllLanes, best, offset);
      if (better(other, at, highest, best)) highest = other, best = at;
    }
    if (best % kWarp == lane) taken |= uint32_t{1} << (best / kWarp);
    chosen(j, best);
  }
}

// Sets to -infinity the values (n,) of the groups that may not be chosen from: all but those with
// the largest sums of their two best. sums: (n_groups,), room.
template <class T>
__device__ __forceinline__ void limit_to_groups(int n, const RouteOptions& o, T* values, T* sums) {
  const int lane = threadIdx.x, groups = int(o.n_groups), size = n / groups;
  for (int g = lane; g < groups; g += kWarp) {
    const T* x = values + g * size;
    int first = -1, second = -1;
    for (int i = 0; i < size; ++i)
      if (better(x[i], i, first < 0 ? T(0) : x[first], first))
        second = first, first = i;
      else if (better(x[i], i, second < 0 ? T(0) : x[second], second))
        second = i;
    sums[g] = second < 0 ? x[first] : x[first] + x[second];
  }
  __syncwarp();
  uint32_t allowed = 0;  // bit i: this lane's i-th group
  choose<T>(
      groups, int(o.top_groups), [&](int g) { return sums[g]; },
      [&](int, int g) {
        if (g % kWarp == lane) allowed |= uint32_t{1} << (g / kWarp);
      });
  for (int g = lane; g < groups; g += kWarp)
    if (!(allowed >> (g / kWarp) & 1))
      for (int i = 0; i < size; ++i) values[g * size + i] = -T(INFINITY);
  __syncwarp();
}

// The softmax of x (n,) into y, which may be x.
template <class T>
__device__ __forceinline__ void softmax_row(const T* x, T* y, int n) {
  T largest = -T(INFINITY), sum = 0;
  for (int i = threadIdx.x; i < n; i += kWarp) largest = x[i] > largest ? x[i] : largest;
  largest = warp_max(largest);
  for (int i = threadIdx.x; i < n; i += kWarp) sum += y[i] = exp_of(x[i] - largest);
  sum = warp_sum(sum);
  for (int i = threadIdx.x; i < n; i += kWarp) y[i] /= sum;
}

// blockDim: 32 lanes, kTokens tokens.
template <class T>
__global__ void route_kernel(RouteArgs a) {
  extern __shared__ __align__(16) char shared[];
  const RouteOptions& o = a.options;
  const int n = int(a.logits.cols()), k = int(o.top_k), lane = threadIdx.x;
  const int64_t t = int64_t(blockIdx.x) * kTokens + threadIdx.y;
  if (t >= a.logits.rows()) return;
  T* values = reinterpret_cast<T*>(shared) + threadIdx.y * 2 * n;  // what is compared, and room
  const T* x = a.logits.row<T>(t);
  T *s = a.scores.row<T>(t), *w = a.weights.row<T>(t);
  int32_t* index = a.index.row<int32_t>(t);
  if (o.router == Router::softmax)
    softmax_row(x, s, n);
  else
    for (int e = lane; e < n; e += kWarp)
      s[e] = o.router == Router::sigmoid ? sigmoid_of(x[e]) : x[e];
  for (int e = lane; e < n; e += kWarp) values[e] = a.bias ? s[e] + a.bias.ptr<T>()[e] : s[e];
  __syncwarp();
  if (o.top_groups < o.n_groups) limit_to_groups(n, o, values, values + n);
  choose<T>(
      n, k, [&](int e) { return values[e]; },
      [&](int j, int e) {  // the lane that has the score again in the steps below
        if (lane == j % kWarp) index[j] = e, w[j] = s[e];
      });
  if (o.router == Router::topk_softmax) {
    softmax_row(w, w, k);
  } else if (o.normalize) {
    T sum = 0;
    for (int j = lane; j < k; j += kWarp) sum += w[j];
    sum = warp_sum(sum) + T(kTiny);
    for (int j = lane; j < k; j += kWarp) w[j] /= sum;
  }
  for (int j = lane; j < k; j += kWarp) w[j] *= T(o.scale);
}

template <class T>
void route_cuda(const RouteArgs& a, Stream stream) {
  const int64_t tokens = a.logits.rows();
  const int bytes = int(2 * kTokens * a.logits.cols() * int64_t(sizeof(T)));
  check_cuda(cudaFuncSetAttribute(route_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  int(2 * kTokens * kMaxExperts * sizeof(T))),
             "moe_route");
  route_kernel<T><<<unsigned((tokens + kTokens - 1) / kTokens), dim3(kWarp, kTokens), bytes,
                    stream_of(stream)>>>(a);
  check_launch("moe_route");
}

// blockDim: 32 lanes, kTokens tokens.
template <class T>
__global__ void route_backward_kernel(RouteBackwardArgs a) {
  const RouteOptions& o = a.options;
  const int n = int(a.scores.cols()), k = int(o.top_k), lane = threadIdx.x;
  const int64_t t = int64_t(blockIdx.x) * kTokens + threadIdx.y;
  if (t >= a.scores.rows()) return;
  const T *s = a.scores.row<T>(t), *w = a.weights.row<T>(t), *dw = a.dweights.row<T>(t);
  const int32_t* index = a.index.row<int32_t>(t);
  T* dx = a.dlogits.grad.row<T>(t);
  if (!a.dlogits.accumulate)
    for (int e = lane; e < n; e += kWarp) dx[e] = 0;
  __syncwarp();
  if (o.router == Router::topk_softmax) {
    T dot = 0;
    for (int j = lane; j < k; j += kWarp) dot += w[j] * dw[j];
    dot = warp_sum(dot) / T(o.scale);
    for (int j = lane; j < k; j += kWarp) dx[index[j]] += w[j] * (dw[j] - dot);
    return;
  }
  // ds_j = (g_j - sum(g s) / sum(s)) / sum(s) when normalised, else g_j, with g = scale dw
  T sum = 0, dot = 0, pull = 0;
  for (int j = lane; j < k; j += kWarp) {
    sum += s[index[j]];
    dot += T(o.scale) * dw[j] * s[index[j]];
  }
  sum = warp_sum(sum) + T(kTiny), dot = warp_sum(dot);
  for (int j = lane; j < k; j += kWarp) {
    const T g = T(o.scale) * dw[j], score = s[index[j]];
    const T ds = o.normalize ? (g - dot / sum) / sum : g;
    dx[index[j]] += o.router == Router::sigmoid ? ds * score * (1 - score) : ds * score;
    pull += ds * score;
  }
  if (o.router != Router::softmax) return;
  pull = warp_sum(pull);
  __syncwarp();
  for (int e = lane; e < n; e += kWarp) dx[e] -= s[e] * pull;
}

template <class T>
void route_backward_cuda(const RouteBackwardArgs& a, Stream stream) {
  const int64_t tokens = a.scores.rows();
  route_backward_kernel<T>
      <<<unsigned((tokens + kTokens - 1) / kTokens), dim3(kWarp, kTokens), 0, stream_of(stream)>>>(
          a);
  check_launch("moe_route_backward");
}

constexpr int kSortWarps = 32;

// A block per kExperts experts. Its warps cut the choices into spans and count, per span, those
// of lower experts, which come first in the sorted order, and those of each of its own; then each
// knows where its own go, and writes them in the order of the tokens. blockDim: 32 lanes,
// kSortWarps.
template <int kExperts>
__global__ void __launch_bounds__(kWarp* kSortWarps) sort_kernel(SortArgs a) {
  __shared__ int32_t lower[kSortWarps], own[kSortWarps][kExperts];
  const int experts = int(a.offsets.numel() - 1), e0 = int(blockIdx.x) * kExperts;
  const int lane = threadIdx.x, warp = threadIdx.y;
  const int64_t pairs = a.index.numel(), k = a.index.cols();
  const int32_t* index = a.index.ptr<int32_t>();
  int32_t *row = a.row.ptr<int32_t>(), *token = a.token.ptr<int32_t>();
  const int64_t steps = (pairs + kWarp * kSortWarps - 1) / (kWarp * kSortWarps);  // per span
  const int64_t begin = warp * steps * kWarp;
  int32_t below = 0, equal[kExperts] = {};
#pragma unroll 4
  for (int64_t step = 0; step < steps; ++step) {
    const int64_t i = begin + step * kWarp + lane;
    const int32_t e = i < pairs ? index[i] : INT32_MAX;
    below += e < e0;
#pragma unroll
    for (int j = 0; j < kExperts; ++j) equal[j] += e == e0 + j;
  }
  below = warp_sum(below);
#pragma unroll
  for (int j = 0; j < kExperts; ++j) {
    equal[j] = warp_sum(equal[j]);
    if (lane == 0) own[warp][j] = equal[j];
  }
  if (lane == 0) lower[warp] = below;
  __syncthreads();
  int32_t first = 0;  // of expert e0 + j
  for (int w = 0; w < kSortWarps; ++w) first += lower[w];
  int32_t next[kExperts];  // of this warp's span
#pragma unroll
  for (int j = 0; j < kExperts; ++j) {
    if (warp == 0 && lane == 0 && e0 + j < experts) a.offsets.ptr<int32_t>()[e0 + j] = first;
    next[j] = first;
    for (int w = 0; w < kSortWarps; ++w) {
      if (w < warp) next[j] += own[w][j];
      first += own[w][j];
    }
  }
  if (warp == 0 && lane == 0 && e0 == 0) a.offsets.ptr<int32_t>()[experts] = int32_t(pairs);
  const unsigned before = (1u << lane) - 1;
#pragma unroll 4
  for (int64_t step = 0; step < steps; ++step) {
    const int64_t i = begin + step * kWarp + lane;
    const int32_t e = i < pairs ? index[i] : INT32_MAX;
    int32_t to = -1;
#pragma unroll
    for (int j = 0; j < kExperts; ++j) {
      const unsigned all = __ballot_sync(kAllLanes, e == e0 + j);
      if (e == e0 + j) to = next[j] + __popc(all & before);
      next[j] += __popc(all);
    }
    if (to < 0) continue;
    row[i] = to;
    token[to] = int32_t(i / k);
  }
}

void sort_cuda(const SortArgs& a, Stream stream) {
  const int64_t experts = a.offsets.numel() - 1;
  const dim3 block(kWarp, kSortWarps);
  if (experts <= 256)  // at most two blocks a multiprocessor, about
    sort_kernel<1><<<unsigned(experts), block, 0, stream_of(stream)>>>(a);
  else
    sort_kernel<4><<<unsigned((experts + 3) / 4), block, 0, stream_of(stream)>>>(a);
  check_launch("moe_sort");
}

}  // namespace

STRATA_CUDA_KERNEL("moe_route", RouteArgs, route_cuda)
STRATA_CUDA_KERNEL("moe_route_backward", RouteBackwardArgs, route_backward_cuda)
STRATA_KERNEL("moe_sort", DeviceKind::cuda, DType::i32, SortArgs, sort_cuda)

}  // namespace strata::moe
