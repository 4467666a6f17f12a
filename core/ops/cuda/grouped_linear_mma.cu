// grouped_linear on tensor cores, for weights and activations of two bytes.
#include <type_traits>

#include "core/kernels/expect.cuh"
#include "core/ops/cuda/grouped_linear_wgmma.cuh"
#include "core/ops/cuda/mma_tile.cuh"

namespace strata {
namespace {

using EvenTile = MmaTile<2, 2, 4, 4, 4, 2>;     // 128 x 128
using PairTile = WgmmaTile<128, 3, 2>;          // 128 x 128, two blocks: one stores, one multiplies
using LongTile = WgmmaTile<256, 4, 1>;          // 128 x 256
using DeepTile = WgmmaTile<128, 6, 1>;          // 128 x 128, far ahead: the sums run over few rows
using FlatMmaTile = MmaTile<1, 4, 1, 1, 8, 4>;  // 16 x 64, when groups have few rows

struct RowsArgs {
  Tensor x, weight, offsets, y;  // y[row] (+)= x[row] W_g^T, or x[row] W_g
  bool accumulate;
  bool wide_x = false, wide_weight = false, paired = false;
  int64_t row_tiles = 0;  // at most
};

// kForward: W_g is (n, k), else (k, n).
template <class T, class Tile, bool kForward>
__global__ void __launch_bounds__(Tile::kTileThreads, Tile::kBlocks) rows_mma_kernel(RowsArgs a) {
  extern __shared__ __align__(128) char shared[];
  const int64_t n = a.y.cols(), across = (n + Tile::kWidth - 1) / Tile::kWidth;
  const int64_t units = a.row_tiles * across;
  for (int64_t unit = blockIdx.x; unit < units; unit += gridDim.x) {
    const RowTile t =
        find_tile(a.offsets.ptr<int32_t>(), a.weight.shape[0], unit / across, Tile::kHeight);
    if (!t.found) return;
    const int64_t n0 = unit % across * Tile::kWidth;
    const Lines<T, true> x{a.x.row<T>(t.begin), a.x.pitch, t.rows, a.wide_x};
    const Lines<T, kForward> w{a.weight.row<T>(t.group * a.weight.shape[1]), a.weight.pitch, n,
                               a.wide_weight};
    float sum[Tile::kMi][2 * Tile::kNj][4];
    mma_product<Tile>(x, w, t.row0, n0, int(a.x.cols()), shared, sum);
    T* y = a.y.row<T>(t.begin + t.row0) + n0;
    const int64_t rows = t.rows - t.row0, cols = n - n0;
    each_row<Tile>(sum, [&](int r, int c, auto& pairs) {
      if (r < rows) put_row(y + r * a.y.pitch, c, cols, pairs, a.paired, a.accumulate);
    });
  }
}

template <class T, class Tile, bool kForward>
void run_rows(const char* op, RowsArgs a, Stream stream) {
  const auto kernel = rows_mma_kernel<T, Tile, kForward>;
  a.row_tiles = most_row_tiles(a.x.rows(), a.weight.shape[0], Tile::kHeight);
  const int64_t units = a.row_tiles * ((a.y.cols() + Tile::kWidth - 1) / Tile::kWidth);
  if (units == 0) return;
  check_cuda(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::kShared), op);
  kernel<<<blocks_for(units, 1), Tile::kTileThreads, Tile::kShared, stream_of(stream)>>>(a);
  check_launch(op);
}

template <class T, bool kForward>
void rows_product(const char* op, const Tensor& x, const Tensor& weight, const Tensor& offsets,
                  const Tensor& y, bool accumulate, Stream stream) {
  expect_read<T>(op, {&x, &weight, &y});
  const bool warpgroups = has_warpgroup_mma() && mappable<T>(x) && mappable<T>(weight);
  if (warpgroups && x.rows() > 16)
    return rows_by_warpgroups<T, std::conditional_t<kForward, PairTile, LongTile>, kForward>(
        op, x, weight, offsets, y, accumulate, stream);
  const RowsArgs a{x,
                   weight,
                   offsets,
                   y,
                   accumulate,
                   wide_rows<T>(x),
                   wide_rows<T>(weight),
                   rows_aligned(y, 2 * sizeof(T))};
  if (x.rows() <= 16 * weight.shape[0])
    run_rows<T, FlatMmaTile, kForward>(op, a, stream);
  else
    run_rows<T, EvenTile, kForward>(op, a, stream);
}

template <class T>
void grouped_linear_mma(const GroupedLinearArgs& a, Stream stream) {
  rows_product<T, true>("grouped_linear", a.x, a.weight, a.offsets, a.y, false, stream);
}

// dW_g (+)= dy_g^T x_g: (d_out, d_in) in float32, summed over the rows of the group
template <class T, class Tile>
__global__ void __launch_bounds__(Tile::kTileThreads, Tile::kBlocks)
    weight_gradient_mma_kernel(GroupedLinearBackwardArgs a, bool wide_x, bool wide_dy,
                               bool paired) {
  extern __shared__ __align__(128) char shared[];
  const int64_t groups = a.weight.shape[0], d_out = a.weight.shape[1], d_in = a.x.cols();
  const int64_t down = (d_out + Tile::kHeight - 1) / Tile::kHeight;
  const int64_t across = (d_in + Tile::kWidth - 1) / Tile::kWidth;
  const int32_t* offsets = a.offsets.ptr<int32_t>();
  for (int64_t unit = blockIdx.x; unit < groups * down * across; unit += gridDim.x) {
    const int64_t g = unit / across / down, begin = offsets[g], rows = offsets[g + 1] - begin;
    if (rows == 0 && a.dweight.accumulate) continue;
    const Lines<T, false> dy{a.dy.row<T>(begin), a.dy.pitch, d_out, wide_dy};
    const Lines<T, false> x{a.x.row<T>(begin), a.x.pitch, d_in, wide_x};
    const int64_t m0 = unit / across % down * Tile::kHeight, n0 = unit % across * Tile::kWidth;
    float sum[Tile::kMi][2 * Tile::kNj][4];
    mma_product<Tile>(dy, x, m0, n0, int(rows), shared, sum);
    float* dw = a.dweight.grad.row<float>(g * d_out + m0) + n0;
    each_row<Tile>(sum, [&](int r, int c, auto& pairs) {
      if (m0 + r < d_out)
        put_row(dw + r * a.dweight.grad.pitch, c, d_in - n0, pairs, paired, a.dweight.accumulate);
    });
  }
}

template <class T>
void grouped_linear_backward_mma(const GroupedLinearBackwardArgs& a, Stream stream) {
  const char* op = "grouped_linear_backward";
  using Tile = EvenTile;
  if (a.dx.wanted)
    rows_product<T, false>(op, a.dy, a.weight, a.offsets, a.dx.grad, a.dx.accumulate, stream);
  if (!a.dweight.wanted) return;
  expect_read<T>(op, {&a.x, &a.dy});
  expect_read<float>(op, {&a.dweight.grad});
  if (a.x.rows() > 0 && has_warpgroup_mma() && mappable<T>(a.x) && mappable<T>(a.dy))
    return weight_gradient_by_warpgroups<T, DeepTile>(op, a, stream);
  const int64_t units = a.weight.shape[0] *
                        ((a.weight.shape[1] + Tile::kHeight - 1) / Tile::kHeight) *
                        ((a.x.cols() + Tile::kWidth - 1) / Tile::kWidth);
  if (units == 0) return;
  const auto kernel = weight_gradient_mma_kernel<T, Tile>;
  check_cuda(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::kShared), op);
  kernel<<<blocks_for(units, 1), Tile::kTileThreads, Tile::kShared, stream_of(stream)>>>(
      a, wide_rows<T>(a.x), wide_rows<T>(a.dy), rows_aligned(a.dweight.grad, 2 * sizeof(float)));
  check_launch(op);
}

}  // namespace

STRATA_CUDA_HALF_KERNEL("grouped_linear", GroupedLinearArgs, grouped_linear_mma)
STRATA_CUDA_BF16_KERNEL("grouped_linear_backward", GroupedLinearBackwardArgs,
                        grouped_linear_backward_mma)

}  // namespace strata
