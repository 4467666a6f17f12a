#include "core/ops/linear.h"

#include "core/kernels/register.h"

namespace strata {
namespace {

// y = x W^T + b
template <class T>
void linear_cpu(const LinearArgs& a, Stream) {
  const int64_t rows = a.x.rows(), d_in = a.x.cols(), d_out = a.y.cols();
  for (int64_t r = 0; r < rows; ++r) {
    const T* x = a.x.row<T>(r);
    T* y = a.y.row<T>(r);
    for (int64_t o = 0; o < d_out; ++o) {
      const T* w = a.weight.row<T>(o);
      T sum = a.bias ? a.bias.ptr<T>()[o] : T(0);
      for (int64_t i = 0; i < d_in; ++i) sum += x[i] * w[i];
      y[o] = sum;
    }
  }
}

// dx = dy W, dW = dy^T x, db = sum over rows of dy
template <class T>
void linear_backward_cpu(const LinearBackwardArgs& a, Stream) {
  const int64_t rows = a.x.rows(), d_in = a.x.cols(), d_out = a.dy.cols();
  if (a.dx.wanted)
    for (int64_t r = 0; r < rows; ++r) {
      T* dx = a.dx.grad.row<T>(r);
      if (!a.dx.accumulate)
        for (int64_t i = 0; i < d_in; ++i) dx[i] = 0;
      for (int64_t o = 0; o < d_out; ++o) {
        const T dy = a.dy.row<T>(r)[o];
        const T* w = a.weight.row<T>(o);
        for (int64_t i = 0; i < d_in; ++i) dx[i] += dy * w[i];
      }
    }
  if (a.dweight.wanted)
    for (int64_t o = 0; o < d_out; ++o) {
      T* dw = a.dweight.grad.row<T>(o);
      if (!a.dweight.accumulate)
        for (int64_t i = 0; i < d_in; ++i) dw[i] = 0;
      for (int64_t r = 0; r < rows; ++r) {
        const T dy = a.dy.row<T>(r)[o];
        const T* x = a.x.row<T>(r);
        for (int64_t i = 0; i < d_in; ++i) dw[i] += dy * x[i];
      }
    }
  if (a.dbias.wanted) {
    T* db = a.dbias.grad.ptr<T>();
    for (int64_t o = 0; o < d_out; ++o) {
      T sum = a.dbias.accumulate ? db[o] : T(0);
      for (int64_t r = 0; r < rows; ++r) sum += a.dy.row<T>(r)[o];
      db[o] = sum;
    }
  }
}

}  // namespace

STRATA_CPU_KERNEL("linear", LinearArgs, linear_cpu)
STRATA_CPU_KERNEL("linear_backward", LinearBackwardArgs, linear_backward_cpu)

}  // namespace strata
