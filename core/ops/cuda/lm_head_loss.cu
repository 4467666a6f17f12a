#include "core/ops/lm_head_loss.h"

#include <climits>

#include "core/ops/cuda/elementwise.cuh"

namespace strata {
namespace {

constexpr int kLossThreads = 1024;

// The largest logit seen, its first place, and the sum of e^(z - largest).
template <class T>
struct Seen {
  T largest;
  int place;
  T sum;
};

// softcap(scale x)
template <class T>
__device__ __forceinline__ T logit_of(T x, T scale, T cap) {
  const T z = scale * x;
  return cap > 0 ? cap * tanh_of(z / cap) : z;
}

// What one thread sees of its row of n logits; the sum is scaled down when a larger one comes.
template <class T, int V>
__device__ __forceinline__ Seen<T> look(const T* row, int n, T scale, T cap) {
  Seen<T> s{-INFINITY, n, 0};
#pragma unroll 4
  for (int v = threadIdx.x * V; v < n; v += kLossThreads * V) {
    Pack<T, V> z = load<T, V>(row + v);
    T most = s.largest;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      z[i] = logit_of(z[i], scale, cap);
      if (z[i] > most) most = z[i], s.place = v + i;
    }
    if (most > s.largest) s.sum *= exp_of(s.largest - most);
    s.largest = most;
#pragma unroll
    for (int i = 0; i < V; ++i)
      if (z[i] != -INFINITY) s.sum += exp_of(z[i] - most);
  }
  return s;
}

// The smallest place of the largest logit over the block, in every thread.
template <class T>
__device__ __forceinline__ int first_place(const Seen<T>& s, T largest, int* room) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int mine = s.largest == largest ? s.place : INT_MAX;
  const int least = __reduce_min_sync(kAllLanes, mine);
  if (lane == 0) room[warp] = least;
  __syncthreads();
  int place = room[0];
  for (int w = 1; w < kLossThreads / kWarp; ++w) place = room[w] < place ? room[w] : place;
  __syncthreads();
  return place;
}

// row = factor * (pull softmax(logits) - onehot(label)), through the softcap
template <class T, int V>
__device__ __forceinline__ void replace_by_gradient(T* row, int n, T scale, T cap, T lse, int label,
                                                    T factor, T pull) {
#pragma unroll 4
  for (int v = threadIdx.x * V; v < n; v += kLossThreads * V) {
    Pack<T, V> p = load<T, V>(row + v);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const T z = logit_of(p[i], scale, cap);
      const T slope = cap > 0 ? factor * (1 - (z / cap) * (z / cap)) : factor;
      p[i] = slope * pull * exp_of(z - lse);
      if (v + i == label) p[i] -= slope;
    }
    store(row + v, p);
  }
}

// One block per row. A kernel cannot throw: a label outside of the vocabulary makes the loss NaN.
template <class T, int V>
__global__ void __launch_bounds__(kLossThreads) cross_entropy_kernel(CrossEntropyArgs a) {
  __shared__ double sums[kWarp];
  __shared__ T most[kWarp];
  __shared__ int places[kWarp];
  const int64_t rows = a.logits.rows();
  const int n = int(a.logits.cols());
  const T scale = T(a.logits_scale), cap = T(a.softcap);
  const bool with_gradient = a.inverse_count.present;
  for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
    T* row = a.logits.row<T>(r);
    const int label = a.labels.ptr<int32_t>()[r];
    if (label < 0 || label >= n) {
      if (with_gradient)
        for (int v = threadIdx.x; v < n; v += kLossThreads) row[v] = 0;
      if (threadIdx.x == 0) {
        a.row_loss.ptr<double>()[r] = label == kNoLabel ? 0 : double(NAN);
        if (a.predictions.present) a.predictions.ptr<int32_t>()[r] = -1;
      }
      continue;
    }
    const T hit = logit_of(row[label], scale, cap);  // before it is overwritten
    const Seen<T> seen = look<T, V>(row, n, scale, cap);
    const T largest = block_max(seen.largest, most);
    const double sum = block_sum(double(seen.sum * exp_of(seen.largest - largest)), sums);
    const double lse = double(largest) + log_of(sum);
    if (threadIdx.x == 0) a.row_loss.ptr<double>()[r] = lse - double(hit) + a.z_loss * lse * lse;
    if (a.predictions.present) {
      const int place = first_place(seen, largest, places);
      if (threadIdx.x == 0) a.predictions.ptr<int32_t>()[r] = place < n ? place : 0;
    }
    if (with_gradient)
      replace_by_gradient<T, V>(row, n, scale, cap, T(lse), label,
                                T(*a.inverse_count.ptr<double>()) * scale,
                                T(1 + 2 * a.z_loss * lse));
  }
}

// loss += the sum of row_loss, count += the labelled rows; one block
__global__ void add_rows_kernel(CrossEntropyArgs a) {
  __shared__ double sums[kWarp];
  __shared__ int64_t counts[kWarp];
  double loss = 0;
  int64_t count = 0;
  for (int64_t r = threadIdx.x; r < a.logits.rows(); r += blockDim.x) {
    loss += a.row_loss.ptr<double>()[r];
    count += a.labels.ptr<int32_t>()[r] != kNoLabel;
  }
  loss = block_sum(loss, sums);
  count = block_sum(count, counts);
  if (threadIdx.x == 0) {
    *a.loss.ptr<double>() += loss;
    *a.count.ptr<int64_t>() += count;
  }
}

template <class T>
void cross_entropy_cuda(const CrossEntropyArgs& a, Stream stream) {
  const int64_t rows = a.logits.rows();
  if (rows == 0) return;
  const cudaStream_t s = stream_of(stream);
  constexpr int V = kPack<T>;
  if (wide_rows<T>(a.logits) && a.logits.cols() % V == 0)
    cross_entropy_kernel<T, V><<<blocks_for(rows, 1), kLossThreads, 0, s>>>(a);
  else
    cross_entropy_kernel<T, 1><<<blocks_for(rows, 1), kLossThreads, 0, s>>>(a);
  check_launch("cross_entropy");
  add_rows_kernel<<<1, kThreads, 0, s>>>(a);
  check_launch("cross_entropy");
}

}  // namespace

STRATA_CUDA_KERNEL("cross_entropy", CrossEntropyArgs, cross_entropy_cuda)

}  // namespace strata
