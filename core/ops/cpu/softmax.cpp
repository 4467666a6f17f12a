#include "core/ops/softmax.h"

#include "core/kernels/activation.h"
#include "core/kernels/parallel.h"
#include "core/kernels/register.h"

namespace strata {
namespace {

template <class T>
void softmax_cpu(const SoftmaxArgs& a, Stream) {
  const int64_t d = a.x.cols();
  parallel_for(a.x.rows(), grain_for(8 * d), [&](int64_t begin, int64_t end) {
    const T scale = T(a.scale);  // a copy of its own: what is written below cannot alias it
    for (int64_t r = begin; r < end; ++r) {
      const T* x = a.x.row<T>(r);
      T* y = a.y.row<T>(r);
      T largest = scale * x[0], sum = 0;
#pragma omp simd reduction(max : largest)
      for (int64_t c = 0; c < d; ++c) largest = scale * x[c] > largest ? scale * x[c] : largest;
      for (int64_t c = 0; c < d; ++c) y[c] = exp_of(scale * x[c] - largest);
#pragma omp simd reduction(+ : sum)
      for (int64_t c = 0; c < d; ++c) sum += y[c];
      for (int64_t c = 0; c < d; ++c) y[c] /= sum;
    }
  });
}

// dx = scale y (dy - sum(y dy))
template <class T>
void softmax_backward_cpu(const SoftmaxBackwardArgs& a, Stream) {
  const int64_t d = a.y.cols();
  parallel_for(a.y.rows(), grain_for(4 * d), [&](int64_t begin, int64_t end) {
    const T scale = T(a.scale);
    for (int64_t r = begin; r < end; ++r) {
      const T *y = a.y.row<T>(r), *dy = a.dy.row<T>(r);
      T* dx = a.dx.grad.row<T>(r);
      T dot = 0;
#pragma omp simd reduction(+ : dot)
      for (int64_t c = 0; c < d; ++c) dot += y[c] * dy[c];
      if (!a.dx.accumulate)
        for (int64_t c = 0; c < d; ++c) dx[c] = 0;
      for (int64_t c = 0; c < d; ++c) dx[c] += scale * y[c] * (dy[c] - dot);
    }
  });
}

}  // namespace

STRATA_CPU_KERNEL("softmax", SoftmaxArgs, softmax_cpu)
STRATA_CPU_KERNEL("softmax_backward", SoftmaxBackwardArgs, softmax_backward_cpu)

}  // namespace strata
