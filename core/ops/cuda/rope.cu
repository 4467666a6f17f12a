#include "core/ops/rope.h"

#include "core/kernels/expect.cuh"
#include "core/ops/cuda/elementwise.cuh"

namespace strata {
namespace {

// A block takes `tile` rows, tile * pairs <= 256: one thread per angle, whose cosine and sine serve
// all heads. Each thread then turns V pairs of one head at a time.
template <class T, int V>
__global__ void __launch_bounds__(kThreads) rope_kernel(RopeArgs a, int tile) {
  using A = Accum<T>;
  __shared__ Pack<A, V> cosines[kThreads / V], sines[kThreads / V];
  const int64_t rows = a.x.rows();
  const int heads = int(a.x.cols() / a.head_dim), packs = a.pairs / V;
  const int rest = int(a.head_dim) - 2 * a.pairs;  // elements that pass through
  for (int64_t r0 = int64_t(blockIdx.x) * tile; r0 < rows; r0 += int64_t(gridDim.x) * tile) {
    const int here = int(rows - r0 < tile ? rows - r0 : tile);
    __syncthreads();
    if (threadIdx.x < here * a.pairs) {
      const int row = threadIdx.x / a.pairs, i = threadIdx.x % a.pairs;
      const double position = a.positions.ptr<int32_t>()[r0 + row];
      double s, c;
      sincos((a.inverse ? -position : position) * a.frequencies[i], &s, &c);
      cosines[threadIdx.x / V][threadIdx.x % V] = A(c);
      sines[threadIdx.x / V][threadIdx.x % V] = A(s);
    }
    __syncthreads();
    for (int item = threadIdx.x; item < here * heads * packs; item += kThreads) {
      const int pack = item % packs, head = item / packs % heads, row = item / packs / heads;
      const int64_t at = head * a.head_dim + pack * V;
      const T* x = a.x.row<T>(r0 + row) + at;
      T* y = a.y.row<T>(r0 + row) + at;
      const Pack<A, V> c = cosines[row * packs + pack], s = sines[row * packs + pack];
      Pack<A, V> low = load_accum<T, V>(x), high = load_accum<T, V>(x + a.pairs);
#pragma unroll
      for (int k = 0; k < V; ++k) {
        const A p = low[k], q = high[k];
        low[k] = p * c[k] - q * s[k];
        high[k] = q * c[k] + p * s[k];
      }
      put_accum<T, V>(y, low, a.accumulate);
      put_accum<T, V>(y + a.pairs, high, a.accumulate);
    }
    for (int item = threadIdx.x; item < here * heads * rest; item += kThreads) {
      const int i = item % rest, head = item / rest % heads, row = item / rest / heads;
      const int64_t at = head * a.head_dim + 2 * a.pairs + i;
      put_accum<T, 1>(a.y.row<T>(r0 + row) + at, load_accum<T, 1>(a.x, r0 + row, at), a.accumulate);
    }
  }
}

template <class T>
void rope_cuda(const RopeArgs& a, Stream stream) {
  if (a.x.numel() == 0) return;
  expect_read<T>("rope", {&a.x, &a.y});
  const int tile = kThreads / a.pairs;
  const int blocks = blocks_for(a.x.rows(), tile);
  constexpr int V = kPack<T>;
  if (a.pairs % V == 0 && a.head_dim % V == 0 && wide_rows<T>(a.x) && wide_rows<T>(a.y))
    rope_kernel<T, V><<<blocks, kThreads, 0, stream_of(stream)>>>(a, tile);
  else
    rope_kernel<T, 1><<<blocks, kThreads, 0, stream_of(stream)>>>(a, tile);
  check_launch("rope");
}

}  // namespace

static_assert(kMaxRotaryPairs <= kThreads);

STRATA_CUDA_KERNEL("rope", RopeArgs, rope_cuda)
STRATA_CUDA_HALF_KERNEL("rope", RopeArgs, rope_cuda)

}  // namespace strata
