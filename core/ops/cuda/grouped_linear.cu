#include "core/ops/grouped_linear.h"

#include "core/ops/cuda/gemm_tile.cuh"
#include "core/ops/cuda/group_tiles.cuh"

namespace strata {
namespace {

struct RowsArgs {
  Tensor x, weight, offsets, y;  // y[row] (+)= x[row] W_g^T, or x[row] W_g
  bool accumulate;
  bool wide_x = false, wide_weight = false, wide_y = false;
  int64_t row_tiles = 0;  // at most
};

// kForward: W_g is (n, k), else (k, n).
template <class Tile, bool kForward>
__global__ void __launch_bounds__(kThreads, 2) rows_kernel(RowsArgs a) {
  using T = typename Tile::T;
  const int64_t n = a.y.cols(), depth = a.x.cols();
  const int64_t across = (n + Tile::kWidth - 1) / Tile::kWidth, units = a.row_tiles * across;
  for (int64_t unit = blockIdx.x; unit < units; unit += gridDim.x) {
    const RowTile t =
        find_tile(a.offsets.ptr<int32_t>(), a.weight.shape[0], unit / across, Tile::kHeight);
    if (!t.found) return;
    const Lines<T, true> x{a.x.row<T>(t.begin), a.x.pitch, t.rows, a.wide_x};
    const Lines<T, kForward> w{a.weight.row<T>(t.group * a.weight.shape[1]), a.weight.pitch, n,
                               a.wide_weight};
    tile_product<Tile>(x, w, t.row0, unit % across * Tile::kWidth, depth, a.y.row<T>(t.begin),
                       a.y.pitch, a.wide_y, a.accumulate);
  }
}

template <class Tile, bool kForward>
void run_rows(const char* op, RowsArgs a, Stream stream) {
  using T = typename Tile::T;
  a.row_tiles = most_row_tiles(a.x.rows(), a.weight.shape[0], Tile::kHeight);
  a.wide_x = wide_rows<T>(a.x);
  a.wide_weight = wide_rows<T>(a.weight);
  a.wide_y = wide_rows<T>(a.y);
  const int64_t units = a.row_tiles * ((a.y.cols() + Tile::kWidth - 1) / Tile::kWidth);
  if (units == 0) return;
  rows_kernel<Tile, kForward><<<blocks_for(units, 1), kThreads, 0, stream_of(stream)>>>(a);
  check_launch(op);
}

template <class T, bool kForward>
void rows_product(const char* op, const Tensor& x, const Tensor& weight, const Tensor& offsets,
                  const Tensor& y, bool accumulate, Stream stream) {
  const RowsArgs a{x, weight, offsets, y, accumulate};
  if (x.rows() <= 32 * weight.shape[0])
    run_rows<FlatTile<T>, kForward>(op, a, stream);
  else
    run_rows<LargeTile<T>, kForward>(op, a, stream);
}

template <class T>
void grouped_linear_cuda(const GroupedLinearArgs& a, Stream stream) {
  rows_product<T, true>("grouped_linear", a.x, a.weight, a.offsets, a.y, false, stream);
}

// dW_g (+)= dy_g^T x_g: (d_out, d_in), summed over the rows of the group
template <class T>
__global__ void __launch_bounds__(kThreads, 2)
    weight_gradient_kernel(GroupedLinearBackwardArgs a, bool wide_x, bool wide_dy, bool wide_dw) {
  using Tile = LargeTile<T>;
  const int64_t groups = a.weight.shape[0], d_out = a.weight.shape[1], d_in = a.x.cols();
  const int64_t down = (d_out + Tile::kHeight - 1) / Tile::kHeight;
  const int64_t across = (d_in + Tile::kWidth - 1) / Tile::kWidth;
  const int32_t* offsets = a.offsets.ptr<int32_t>();
  for (int64_t unit = blockIdx.x; unit < groups * down * across; unit += gridDim.x) {
    const int64_t g = unit / across / down, begin = offsets[g], rows = offsets[g + 1] - begin;
    if (rows == 0 && a.dweight.accumulate) continue;
    const Lines<T, false> dy{a.dy.row<T>(begin), a.dy.pitch, d_out, wide_dy};
    const Lines<T, false> x{a.x.row<T>(begin), a.x.pitch, d_in, wide_x};
    tile_product<Tile>(dy, x, unit / across % down * Tile::kHeight, unit % across * Tile::kWidth,
                       rows, a.dweight.grad.row<T>(g * d_out), a.dweight.grad.pitch, wide_dw,
                       a.dweight.accumulate);
  }
}

template <class T>
void grouped_linear_backward_cuda(const GroupedLinearBackwardArgs& a, Stream stream) {
  using Tile = LargeTile<T>;
  const char* op = "grouped_linear_backward";
  if (a.dx.wanted)
    rows_product<T, false>(op, a.dy, a.weight, a.offsets, a.dx.grad, a.dx.accumulate, stream);
  if (!a.dweight.wanted) return;
  const int64_t units = a.weight.shape[0] *
                        ((a.weight.shape[1] + Tile::kHeight - 1) / Tile::kHeight) *
                        ((a.x.cols() + Tile::kWidth - 1) / Tile::kWidth);
  if (units == 0) return;
  weight_gradient_kernel<T><<<blocks_for(units, 1), kThreads, 0, stream_of(stream)>>>(
      a, wide_rows<T>(a.x), wide_rows<T>(a.dy), wide_rows<T>(a.dweight.grad));
  check_launch(op);
}

}  // namespace

STRATA_CUDA_KERNEL("grouped_linear", GroupedLinearArgs, grouped_linear_cuda)
STRATA_CUDA_KERNEL("grouped_linear_backward", GroupedLinearBackwardArgs,
                   grouped_linear_backward_cuda)

}  // namespace strata
