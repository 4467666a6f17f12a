#include "core/ops/arithmetic.h"

#include "core/kernels/expect.cuh"
#include "core/ops/cuda/elementwise.cuh"
#include "core/ops/cuda/row_reduce.cuh"
#include "core/ops/row_blocks.h"

namespace strata {
namespace {

template <class T>
struct Combine {
  Arithmetic kind;
  Tensor a, b, y;  // row r of a meets row r % rows(b) of b
  int64_t b_rows;
  bool wide;  // b has a number per column, not one per row
  bool accumulate;

  template <int V>
  __device__ void run(int64_t r, int64_t c) const {
    const int64_t br = r < b_rows ? r : r % b_rows;
    Pack<Accum<T>, V> p = load_accum<T, V>(a, r, c), q;
    if (wide) {
      q = load_accum<T, V>(b, br, c);
    } else {
      const Accum<T> value = strata::wide(*b.row<T>(br));
#pragma unroll
      for (int i = 0; i < V; ++i) q[i] = value;
    }
#pragma unroll
    for (int i = 0; i < V; ++i) {
      if (kind == Arithmetic::add) p[i] += q[i];
      if (kind == Arithmetic::sub) p[i] -= q[i];
      if (kind == Arithmetic::mul) p[i] *= q[i];
    }
    put_accum<T>(y, r, c, p, accumulate);
  }
};

template <class T>
void combine(const char* op, Arithmetic kind, const Tensor& a, const Tensor& b, const Tensor& y,
             bool accumulate, Stream s) {
  expect_read<T>(op, {&a, &b});
  expect_either<T>(op, {&y});
  const int64_t rows = a.rows(), d = a.cols();
  const bool same = b.rows() == rows && b.cols() == d, single = b.numel() == 1;
  const bool wide = same || (b.cols() == d && !single);
  const Combine<T> f{kind, a, b, y, b.rows(), wide, accumulate};
  if (wide)
    each<T>(op, s, rows, d, {&a, &b, &y}, f, !same);
  else
    each<T>(op, s, rows, d, {&a, &y}, f, !single);
}

template <class T>
void arithmetic_cuda(const ArithmeticArgs& s, Stream stream) {
  combine<T>("arithmetic", s.kind, s.a, s.b, s.y, false, stream);
}

template <class T>
struct Scale {
  Tensor x, y;  // y: T or Accum<T>
  Accum<T> factor, shift;
  bool accumulate;

  template <int V>
  __device__ void run(int64_t r, int64_t c) const {
    Pack<Accum<T>, V> p = load_accum<T, V>(x, r, c);
#pragma unroll
    for (int i = 0; i < V; ++i) p[i] = factor * p[i] + shift;
    put_accum<T>(y, r, c, p, accumulate);
  }
};

template <class T>
void scale_cuda(const ScaleArgs& s, Stream stream) {
  expect_read<T>("scale", {&s.x});
  expect_either<T>("scale", {&s.y});
  each<T>("scale", stream, s.x.rows(), s.x.cols(), {&s.x, &s.y},
          Scale<T>{s.x, s.y, Accum<T>(s.factor), Accum<T>(s.shift), s.accumulate});
}

// What (r, c) of dy adds to the gradient of b.
template <class T>
__device__ __forceinline__ Accum<T> part_of_b(const ArithmeticBackwardArgs& s, int64_t r,
                                              int64_t c) {
  const Accum<T> dy = wide(s.dy.row<T>(r)[c]);
  if (s.kind == Arithmetic::mul) return dy * wide(s.a.row<T>(r)[c]);
  return s.kind == Arithmetic::sub ? -dy : dy;
}

// b has one number for every row: db[r] (+)= sum over the row
template <class T>
__global__ void row_numbers_kernel(ArithmeticBackwardArgs s) {
  __shared__ Accum<T> room[kWarp];
  const int64_t rows = s.a.rows(), d = s.a.cols();
  for (int64_t r = int64_t(blockIdx.x) * blockDim.y + threadIdx.y; r < rows;
       r += int64_t(gridDim.x) * blockDim.y) {
    Accum<T> sum = 0;
#pragma unroll 4
    for (int64_t c = threadIdx.x; c < d; c += blockDim.x) sum += part_of_b<T>(s, r, c);
    sum = row_sum(sum, room);
    if (threadIdx.x == 0) put_at<T>(s.db.grad, r * s.db.grad.pitch, sum, s.db.accumulate);
  }
}

// partial[block][i] = the sum over a block of rows for element i of b. A block of threads takes the
// rows of one block that meet one row of b, and `lanes` columns of it; all columns at once when b
// has one number for them (then there are 32 lanes).
template <class T>
__global__ void __launch_bounds__(kSumThreads, 2)
    partial_kernel(ArithmeticBackwardArgs s, RowBlocks blocks, int lanes) {
  using A = Accum<T>;
  __shared__ A room[kSumThreads];
  const int64_t d = s.a.cols(), b_rows = s.b.rows(), width = s.b.cols();
  const bool wide = width == d;
  const int64_t slices = wide ? (d + lanes - 1) / lanes : 1, units = blocks.count * b_rows * slices;
  const int lane = threadIdx.x % lanes;
  for (int64_t unit = blockIdx.x; unit < units; unit += gridDim.x) {
    const int64_t slice = unit % slices, row = unit / slices % b_rows;
    const int64_t block = unit / slices / b_rows, begin = blocks.begin(block);
    const int64_t first = begin + (row - begin % b_rows + b_rows) % b_rows;
    const int64_t end = blocks.end(block), c = slice * lanes + lane;
    A sum;
    if (wide) {
      sum = sum_over_rows(first, end, b_rows, lanes, c < d, room,
                          [&](int64_t r) { return part_of_b<T>(s, r, c); });
    } else {
      sum = sum_over_rows(first, end, b_rows, lanes, true, room, [&](int64_t r) {
        A across = 0;
        for (int64_t i = lane; i < d; i += lanes) across += part_of_b<T>(s, r, i);
        return across;
      });
      sum = warp_sum(sum);
    }
    if (threadIdx.x < lanes && c < width) s.partial.row<A>(block)[row * width + c] = sum;
  }
}

template <class T>
__global__ void sum_partial_kernel(ArithmeticBackwardArgs s, int64_t count) {
  const int64_t width = s.b.cols();
  STRATA_GRID_LOOP(i, s.b.numel()) {
    Accum<T> sum = 0;
    for (int64_t block = 0; block < count; ++block) sum += s.partial.row<Accum<T>>(block)[i];
    put_at<T>(s.db.grad, i / width * s.db.grad.pitch + i % width, sum, s.db.accumulate);
  }
}

template <class T>
void backward_b(const ArithmeticBackwardArgs& s, Stream stream) {
  const char* op = "arithmetic_backward";
  expect_read<T>(op, {&s.a, &s.b, &s.dy});
  expect_either<T>(op, {&s.db.grad});
  const int64_t rows = s.a.rows(), d = s.a.cols();
  const bool direct = s.b.rows() == rows, wide = s.b.cols() == d;
  if (direct && wide) {
    if (s.kind == Arithmetic::mul) {
      combine<T>(op, s.kind, s.dy, s.a, s.db.grad, s.db.accumulate, stream);
    } else {
      const double sign = s.kind == Arithmetic::sub ? -1 : 1;
      scale_cuda<T>({s.dy, s.db.grad, sign, 0, s.db.accumulate}, stream);
    }
    return;
  }
  if (direct) {
    const dim3 block = row_threads(d);
    row_numbers_kernel<T><<<row_grid(rows, block), block, 0, stream_of(stream)>>>(s);
    return check_launch(op);
  }
  const RowBlocks blocks = row_blocks(rows);
  const int lanes = wide ? sum_lanes(d) : kWarp;
  const int64_t units = blocks.count * s.b.rows() * (wide ? (d + lanes - 1) / lanes : 1);
  partial_kernel<T><<<blocks_for(units, 1), kSumThreads, 0, stream_of(stream)>>>(s, blocks, lanes);
  check_launch(op);
  sum_partial_kernel<T>
      <<<blocks_for(s.b.numel()), kThreads, 0, stream_of(stream)>>>(s, blocks.count);
  check_launch(op);
}

template <class T>
void arithmetic_backward_cuda(const ArithmeticBackwardArgs& s, Stream stream) {
  if (s.da.wanted) {
    if (s.kind == Arithmetic::mul)
      combine<T>("arithmetic_backward", s.kind, s.dy, s.b, s.da.grad, s.da.accumulate, stream);
    else
      scale_cuda<T>({s.dy, s.da.grad, 1, 0, s.da.accumulate}, stream);
  }
  if (s.db.wanted) backward_b<T>(s, stream);
}

}  // namespace

STRATA_CUDA_KERNEL("arithmetic", ArithmeticArgs, arithmetic_cuda)
STRATA_CUDA_HALF_KERNEL("arithmetic", ArithmeticArgs, arithmetic_cuda)
STRATA_CUDA_KERNEL("arithmetic_backward", ArithmeticBackwardArgs, arithmetic_backward_cuda)
STRATA_CUDA_BF16_KERNEL("arithmetic_backward", ArithmeticBackwardArgs, arithmetic_backward_cuda)
STRATA_CUDA_KERNEL("scale", ScaleArgs, scale_cuda)
STRATA_CUDA_HALF_KERNEL("scale", ScaleArgs, scale_cuda)

}  // namespace strata
