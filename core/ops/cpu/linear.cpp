#include "core/ops/linear.h"

#include "core/kernels/gemm.h"
#include "core/kernels/parallel.h"
#include "core/kernels/register.h"

namespace strata {
namespace {

// y = x W^T + b. The bias goes in first, so that the product adds to it in one pass.
template <class T>
void linear_cpu(const LinearArgs& a, Stream) {
  const int64_t rows = a.x.rows(), d_in = a.x.cols(), d_out = a.y.cols();
  if (a.bias) {
    const T* bias = a.bias.ptr<T>();
    parallel_for(rows, grain_for(d_out), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        T* y = a.y.row<T>(r);
        for (int64_t c = 0; c < d_out; ++c) y[c] = bias[c];
      }
    });
  }
  gemm<T>(Trans::no, Trans::yes, rows, d_out, d_in, 1, a.x.ptr<T>(), a.x.pitch, a.weight.ptr<T>(),
          a.weight.pitch, a.bias ? 1 : 0, a.y.ptr<T>(), a.y.pitch);
}

// dx = dy W, dW = dy^T x, db = sum over rows of dy
template <class T>
void linear_backward_cpu(const LinearBackwardArgs& a, Stream) {
  const int64_t rows = a.x.rows(), d_in = a.x.cols(), d_out = a.dy.cols();
  const T* dy = a.dy.ptr<T>();
  if (a.dx.wanted)
    gemm<T>(Trans::no, Trans::no, rows, d_in, d_out, 1, dy, a.dy.pitch, a.weight.ptr<T>(),
            a.weight.pitch, a.dx.accumulate ? 1 : 0, a.dx.grad.ptr<T>(), a.dx.grad.pitch);
  if (a.dweight.wanted)
    gemm<T>(Trans::yes, Trans::no, d_out, d_in, rows, 1, dy, a.dy.pitch, a.x.ptr<T>(), a.x.pitch,
            a.dweight.accumulate ? 1 : 0, a.dweight.grad.ptr<T>(), a.dweight.grad.pitch);
  if (a.dbias.wanted) {
    T* db = a.dbias.grad.ptr<T>();
    constexpr int64_t kCols = 64;  // columns of one piece: rows are read in order within it
    parallel_for((d_out + kCols - 1) / kCols, grain_for(rows * kCols),
                 [&](int64_t first, int64_t last) {
                   const int64_t begin = first * kCols;
                   const int64_t end = last * kCols < d_out ? last * kCols : d_out;
                   if (!a.dbias.accumulate)
                     for (int64_t c = begin; c < end; ++c) db[c] = 0;
                   for (int64_t r = 0; r < rows; ++r) {
                     const T* row = a.dy.row<T>(r);
                     for (int64_t c = begin; c < end; ++c) db[c] += row[c];
                   }
                 });
  }
}

}  // namespace

STRATA_CPU_KERNEL("linear", LinearArgs, linear_cpu)
STRATA_CPU_KERNEL("linear_backward", LinearBackwardArgs, linear_backward_cpu)

}  // namespace strata
