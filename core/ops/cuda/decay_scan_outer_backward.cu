// The scan with a matrix state, backward. The states before chunks of 64 tokens were kept; a block
// takes a (sequence, head) pair and walks its chunks from last to first with dS, the gradient of
// the state after the chunk, in the workspace. With D_ij = a_{j+1} ... a_i, e_i = a_0 ... a_i and
// w_j = D_{n-1,j} of a chunk, P = q k^T and E = dy v^T:
//   dv = (P o D)^T dy + (w o k) dS            dq = (E o D) k + e o (dy S^T)
//   dk = (E o D)^T q + w o (v dS^T)           dS <- e_{n-1} dS + (e o q)^T dy
//   dD = E o P, de = q . (dy S^T), dw = k . (v dS^T), de_{n-1} += dS . S
#include "core/kernels/decay_tile.cuh"
#include "core/kernels/expect.cuh"
#include "core/ops/cuda/elementwise.cuh"
#include "core/ops/decay_scan.h"

namespace strata {
namespace {

static_assert(kScanChunk == kTile);

// Vectors are (kTile,).
template <class T>
struct Shared {
  alignas(16) T room[kTileRoom];
  T first[kTile * kTile], second[kTile * kTile];
  T a[kTile], ones[kTile], e[kTile], w[kTile];
  T de[kTile], dw[kTile], da[kTile], unused[kTile];
  T sums[kTileThreads / kWarp];
};

// The tokens of one pair in a chunk: token t at base + t * step.
template <class T>
struct Rows {
  const T* base;
  int64_t step;
  __device__ __forceinline__ Rows(const Tensor& x, int64_t row, int64_t heads)
      : base(x.row<T>(row)), step(heads * x.pitch) {}
  __device__ __forceinline__ Accum<T> at(int t, int c) const { return wide(base[t * step + c]); }
};

// out_i += sum over the tile's columns c of acc_ic x_i,c0+c, for rows i < n and columns < cols; one
// thread adds to each out_i. Then acc_i *= factor_i.
template <class T>
__device__ __forceinline__ void dot_and_scale(Accum<T> (&acc)[4][4], const Rows<T>& x, int n,
                                              int c0, int cols, Accum<T>* out,
                                              const Accum<T>* factor) {
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    const int i = tile_row() + r;
    Accum<T> sum = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int c = c0 + tile_col() + j;
      if (i < n && c < cols) sum += acc[r][j] * x.at(i, c);
      acc[r][j] *= factor[i];
    }
    sum = tile_row_sum(sum);
    if (threadIdx.x % 16 == 0) out[i] += sum;
  }
}

template <class T>
__device__ __forceinline__ void deliver(Accum<T> (&acc)[4][4], const GradTarget& to, int64_t row,
                                        int64_t heads, int n, int c0, int cols) {
  each_of_tile(acc, [&](int i, int c, Accum<T> value) {
    if (i < n && c0 + c < cols)
      put_at<T>(to.grad, (row + i * heads) * to.grad.pitch + c0 + c, value, to.accumulate);
  });
}

// One chunk of n tokens from t0; start, ds: (d_k, d_v). Gradients are written in the order in which
// the op asked for their places: k, v and q may share one.
template <class T>
__device__ void chunk_backward(const DecayScanOuterBackwardArgs& s, Shared<Accum<T>>& l, int64_t b,
                               int64_t head, int64_t t0, int n, const Accum<T>* start,
                               Accum<T>* ds) {
  using A = Accum<T>;
  const int64_t seq_len = s.k.shape[1], heads = s.k.shape[2];
  const int64_t row = (b * seq_len + t0) * heads + head;  // of the chunk's first token
  const int d_k = int(s.k.cols()), d_v = int(s.v.cols()), thread = threadIdx.x;
  const Rows<T> k(s.k, row, heads), v(s.v, row, heads), q(s.q, row, heads), dy(s.dy, row, heads);
  const int32_t* doc = s.seq_idx ? s.seq_idx.ptr<int32_t>() + b * seq_len + t0 : nullptr;
  const auto starts = [&](int t) { return doc && t0 + t > 0 && doc[t] != doc[t - 1]; };
  A *first = l.first, *second = l.second;

  if (thread < kTile) {
    A a = A(1);
    if (thread < n)
      a = starts(thread) ? A(0) : get_at<T>(s.a, (b * seq_len + t0 + thread) * s.a.pitch + head);
    l.a[thread] = a, l.ones[thread] = A(1);
    l.de[thread] = l.dw[thread] = A(0);
  }
  __syncthreads();
  decay_columns(l.a, l.ones, [&](int i, int j, A d) {  // first = D
    first[i * kTile + j] = d;
    if (i == kTile - 1) l.w[j] = d;
  });
  if (thread == kTile) {
    A e = A(1);
    for (int i = 0; i < kTile; ++i) l.e[i] = e *= l.a[i];
  }
  __syncthreads();

  A pairs[4][4] = {};  // P
  tile_product<true, true>(
      pairs, d_k, [&](int i, int d) { return i < n ? q.at(i, d) : A(0); },
      [&](int d, int j) { return j < n ? k.at(j, d) : A(0); }, l.room);
  A outer[4][4] = {};  // E
  tile_product<true, true>(
      outer, d_v, [&](int i, int c) { return i < n ? dy.at(i, c) : A(0); },
      [&](int c, int j) { return j < n ? v.at(j, c) : A(0); }, l.room);
  const auto below = [&](int i, int j) { return j <= i ? first[i * kTile + j] : A(0); };  // D
  each_of_tile(outer, [&](int i, int j, A e) { second[i * kTile + j] = e * below(i, j); });
  __syncthreads();
  for (int d0 = 0; d0 < d_k; d0 += kTile) {
    A acc[4][4] = {};
    tile_product<true, true>(
        acc, d_v, [&](int j, int c) { return j < n ? v.at(j, c) : A(0); },
        [&](int c, int d) { return d0 + d < d_k ? ds[int64_t(d0 + d) * d_v + c] : A(0); }, l.room);
    dot_and_scale(acc, k, n, d0, d_k, l.dw, l.w);
    if (!s.dk.wanted) continue;
    tile_product<false, false>(
        acc, n, [&](int j, int i) { return second[i * kTile + j]; },
        [&](int i, int d) { return d0 + d < d_k ? q.at(i, d0 + d) : A(0); }, l.room);
    deliver<T>(acc, s.dk, row, heads, n, d0, d_k);
  }
  if (s.dv.wanted) {
    each_of_tile(pairs, [&](int i, int j, A p) { second[i * kTile + j] = p * below(i, j); });
    __syncthreads();
    for (int c0 = 0; c0 < d_v; c0 += kTile) {
      A acc[4][4] = {};
      tile_product<false, false>(
          acc, n, [&](int j, int i) { return second[i * kTile + j]; },
          [&](int i, int c) { return c0 + c < d_v ? dy.at(i, c0 + c) : A(0); }, l.room);
      tile_product<true, false>(
          acc, d_k, [&](int j, int d) { return j < n ? l.w[j] * k.at(j, d) : A(0); },
          [&](int d, int c) { return c0 + c < d_v ? ds[int64_t(d) * d_v + c0 + c] : A(0); },
          l.room);
      deliver<T>(acc, s.dv, row, heads, n, c0, d_v);
    }
  }
  each_of_tile(outer, [&](int i, int j, A e) { second[i * kTile + j] = e * below(i, j); });
#pragma unroll
  for (int r = 0; r < 4; ++r)
#pragma unroll
    for (int c = 0; c < 4; ++c)  // first = E o P; above the diagonal it is not read
      first[(tile_row() + r) * kTile + tile_col() + c] = outer[r][c] * pairs[r][c];
  __syncthreads();
  for (int d0 = 0; d0 < d_k; d0 += kTile) {
    A acc[4][4] = {};
    tile_product<true, true>(
        acc, d_v, [&](int i, int c) { return i < n ? dy.at(i, c) : A(0); },
        [&](int c, int d) { return d0 + d < d_k ? start[int64_t(d0 + d) * d_v + c] : A(0); },
        l.room);
    dot_and_scale(acc, q, n, d0, d_k, l.de, l.e);
    if (!s.dq.wanted) continue;
    tile_product<true, false>(
        acc, n, [&](int i, int j) { return second[i * kTile + j]; },
        [&](int j, int d) { return d0 + d < d_k ? k.at(j, d0 + d) : A(0); }, l.room);
    deliver<T>(acc, s.dq, row, heads, n, d0, d_k);
  }
  if (s.da.wanted) {
    A sum = 0;
    for (int i = thread; i < d_k * d_v; i += kTileThreads) sum += ds[i] * start[i];
    sum = block_sum(sum, l.sums);
    if (thread == 0) l.de[kTile - 1] += sum;
    decay_columns(l.a, l.ones, [&](int i, int j, A d) { second[i * kTile + j] = d; });
    __syncthreads();
    decay_adjoint(
        l.a, second, l.e, [&](int i, int j) { return first[i * kTile + j]; },
        [&](int j) { return l.dw[j]; }, first, l.de, l.da, l.unused);
    if (thread < n)
      put_at<T>(s.da.grad, (b * seq_len + t0 + thread) * s.da.grad.pitch + head,
                starts(thread) ? A(0) : l.da[thread], s.da.accumulate);
  }
  __syncthreads();  // ds has been read
  for (int d0 = 0; d0 < d_k; d0 += kTile)
    for (int c0 = 0; c0 < d_v; c0 += kTile) {
      A acc[4][4] = {};
      tile_product<false, false>(
          acc, n, [&](int d, int t) { return d0 + d < d_k ? l.e[t] * q.at(t, d0 + d) : A(0); },
          [&](int t, int c) { return c0 + c < d_v ? dy.at(t, c0 + c) : A(0); }, l.room);
      each_of_tile(acc, [&](int d, int c, A value) {
        if (d0 + d >= d_k || c0 + c >= d_v) return;
        A& to = ds[int64_t(d0 + d) * d_v + c0 + c];
        to = l.e[kTile - 1] * to + value;
      });
    }
  __syncthreads();
}

template <class T>
__global__ void __launch_bounds__(kTileThreads) backward_kernel(DecayScanOuterBackwardArgs s) {
  extern __shared__ __align__(16) char shared[];
  using A = Accum<T>;
  Shared<A>& l = *reinterpret_cast<Shared<A>*>(shared);
  const int64_t seq_len = s.k.shape[1], heads = s.k.shape[2], size = s.k.cols() * s.v.cols();
  const int64_t chunks = (seq_len + kScanChunk - 1) / kScanChunk;
  A* ds = s.work.ptr<A>() + blockIdx.x * size;
  for (int64_t pair = blockIdx.x; pair < s.k.shape[0] * heads; pair += gridDim.x) {
    const int64_t b = pair / heads, head = pair % heads;
    for (int64_t i = threadIdx.x; i < size; i += kTileThreads) ds[i] = A(0);
    __syncthreads();
    for (int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
      const int64_t t0 = chunk * kScanChunk, left = seq_len - t0;
      chunk_backward<T>(s, l, b, head, t0, left < kTile ? int(left) : kTile,
                        s.starts.row<A>((b * chunks + chunk) * heads + head), ds);
    }
  }
}

template <class T>
void decay_scan_outer_backward_cuda(const DecayScanOuterBackwardArgs& s, Stream stream) {
  const char* op = "decay_scan_outer_backward";
  expect_read<T>(op, {&s.k, &s.v, &s.q, &s.dy});
  expect_either<T>(op, {&s.a, &s.da.grad, &s.dk.grad, &s.dv.grad, &s.dq.grad});
  expect_read<Accum<T>>(op, {&s.starts, &s.work});
  constexpr int kShared = int(sizeof(Shared<Accum<T>>));
  check_cuda(cudaFuncSetAttribute(backward_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  kShared),
             op);
  // As many blocks as states fit into the workspace; each takes its pairs in turn.
  const int64_t pairs = s.k.shape[0] * s.k.shape[2];
  const int64_t fit = s.work.numel() / (s.k.cols() * s.v.cols());
  backward_kernel<T>
      <<<unsigned(pairs < fit ? pairs : fit), kTileThreads, kShared, stream_of(stream)>>>(s);
  check_launch(op);
}

}  // namespace

STRATA_CUDA_KERNEL("decay_scan_outer_backward", DecayScanOuterBackwardArgs,
                   decay_scan_outer_backward_cuda)
STRATA_CUDA_BF16_KERNEL("decay_scan_outer_backward", DecayScanOuterBackwardArgs,
                        decay_scan_outer_backward_cuda)

}  // namespace strata
