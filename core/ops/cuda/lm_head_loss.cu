#include "core/ops/lm_head_loss.h"

#include <climits>

#include "core/kernels/expect.cuh"
#include "core/ops/cuda/elementwise.cuh"

namespace strata {
namespace {

// Threads of a row. Rows of two-byte logits are short in time: more of them share a multiprocessor.
template <class T>
constexpr int kLossThreads = is_half<T> ? 512 : 1024;

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

// e^x; to about 20 bits when the logits are stored in two bytes.
template <class T>
__device__ __forceinline__ Accum<T> exp_for(Accum<T> x) {
  if constexpr (is_half<T>)
    return __expf(x);
  else
    return exp_of(x);
}

// What one thread sees of its row of n logits; the sum is scaled down when a larger one comes.
template <class T, int V>
__device__ __forceinline__ Seen<Accum<T>> look(const T* row, int n, Accum<T> scale, Accum<T> cap) {
  Seen<Accum<T>> s{-INFINITY, n, 0};
#pragma unroll 4
  for (int v = threadIdx.x * V; v < n; v += kLossThreads<T> * V) {
    Pack<Accum<T>, V> z = load_accum<T, V>(row + v);
    Accum<T> most = s.largest;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      z[i] = logit_of(z[i], scale, cap);
      if (z[i] > most) most = z[i], s.place = v + i;
    }
    if (most > s.largest) s.sum *= exp_for<T>(s.largest - most);
    s.largest = most;
#pragma unroll
    for (int i = 0; i < V; ++i)
      if (z[i] != -INFINITY) s.sum += exp_for<T>(z[i] - most);
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
  for (int w = 1; w < int(blockDim.x) / kWarp; ++w) place = room[w] < place ? room[w] : place;
  __syncthreads();
  return place;
}

// row = factor * (pull softmax(logits) - onehot(label)), through the softcap
template <class T, int V>
__device__ __forceinline__ void replace_by_gradient(T* row, int n, Accum<T> scale, Accum<T> cap,
                                                    Accum<T> lse, int label, Accum<T> factor,
                                                    Accum<T> pull) {
  using A = Accum<T>;
#pragma unroll 4
  for (int v = threadIdx.x * V; v < n; v += kLossThreads<T> * V) {
    Pack<A, V> p = load_accum<T, V>(row + v);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const A z = logit_of(p[i], scale, cap);
      const A slope = cap > 0 ? factor * (1 - (z / cap) * (z / cap)) : factor;
      p[i] = slope * pull * exp_for<T>(z - lse);
      if (v + i == label) p[i] -= slope;
    }
    store_pack(row + v, narrow<T>(p));
  }
}

// One block per row. A kernel cannot throw: a label outside of the vocabulary makes the loss NaN.
template <class T, int V>
__global__ void __launch_bounds__(kLossThreads<T>, is_half<T> ? 3 : 1)
    cross_entropy_kernel(CrossEntropyArgs a) {
  using A = Accum<T>;
  __shared__ double sums[kWarp];
  __shared__ A most[kWarp];
  __shared__ int places[kWarp];
  const int64_t rows = a.logits.rows();
  const int n = int(a.logits.cols());
  const A scale = A(a.logits_scale), cap = A(a.softcap);
  const bool with_gradient = a.inverse_count.present;
  for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
    T* row = a.logits.row<T>(r);
    const int label = a.labels.ptr<int32_t>()[r];
    if (label < 0 || label >= n) {
      if (with_gradient)
        for (int v = threadIdx.x; v < n; v += kLossThreads<T>) row[v] = T(0.f);
      if (threadIdx.x == 0) {
        a.row_loss.ptr<double>()[r] = label == kNoLabel ? 0 : double(NAN);
        if (a.predictions.present) a.predictions.ptr<int32_t>()[r] = -1;
      }
      continue;
    }
    const A hit = logit_of(wide(row[label]), scale, cap);  // before it is overwritten
    const Seen<A> seen = look<T, V>(row, n, scale, cap);
    const A largest = block_max(seen.largest, most);
    const double sum = block_sum(double(seen.sum * exp_of(seen.largest - largest)), sums);
    const double lse = double(largest) + log_of(sum);
    if (threadIdx.x == 0) a.row_loss.ptr<double>()[r] = lse - double(hit) + a.z_loss * lse * lse;
    if (a.predictions.present) {
      const int place = first_place(seen, largest, places);
      if (threadIdx.x == 0) a.predictions.ptr<int32_t>()[r] = place < n ? place : 0;
    }
    if (with_gradient)
      replace_by_gradient<T, V>(row, n, scale, cap, A(lse), label,
                                A(*a.inverse_count.ptr<double>()) * scale,
                                A(1 + 2 * a.z_loss * lse));
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
  expect_read<T>("cross_entropy", {&a.logits});
  const cudaStream_t s = stream_of(stream);
  constexpr int V = kPack<T>;
  if (wide_rows<T>(a.logits) && a.logits.cols() % V == 0)
    cross_entropy_kernel<T, V><<<blocks_for(rows, 1), kLossThreads<T>, 0, s>>>(a);
  else
    cross_entropy_kernel<T, 1><<<blocks_for(rows, 1), kLossThreads<T>, 0, s>>>(a);
  check_launch("cross_entropy");
  add_rows_kernel<<<1, kThreads, 0, s>>>(a);
  check_launch("cross_entropy");
}

}  // namespace

STRATA_CUDA_KERNEL("cross_entropy", CrossEntropyArgs, cross_entropy_cuda)
STRATA_CUDA_HALF_KERNEL("cross_entropy", CrossEntropyArgs, cross_entropy_cuda)

}  // namespace strata
