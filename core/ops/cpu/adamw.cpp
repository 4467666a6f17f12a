#include "core/ops/adamw.h"

#include <algorithm>
#include <cmath>

#include "core/kernels/register.h"

namespace strata {
namespace {

template <class T>
void adamw_cpu(const AdamWArgs& a, Stream) {
  T* w = a.value.ptr<T>();
  const T* grad = a.grad.ptr<T>();
  T* m = a.m.ptr<T>();
  T* v = a.v.ptr<T>();
  const T b1 = T(a.beta1), b2 = T(a.beta2), eps = T(a.eps), clip = T(a.clip);
  const T shrink = T(1 - a.lr * a.decay), rate = T(a.lr / a.correction1);
  const T root = T(1 / std::sqrt(a.correction2));
  const int64_t n = a.value.numel();
#pragma omp parallel for simd if (n > 1 << 15)
  for (int64_t i = 0; i < n; ++i) {
    const T g = clip * grad[i];
    m[i] = b1 * m[i] + (1 - b1) * g;
    v[i] = b2 * v[i] + (1 - b2) * g * g;
    w[i] = shrink * w[i] - rate * m[i] / (std::sqrt(v[i]) * root + eps);
  }
}

// Blocks of a fixed size are summed side by side, then in their order.
template <class T>
void squared_norm_cpu(const SquaredNormArgs& a, Stream) {
  constexpr int64_t kBlock = 4096, kBatch = 256;
  const T* x = a.x.ptr<T>();
  const int64_t n = a.x.numel(), blocks = (n + kBlock - 1) / kBlock;
  double partial[kBatch];
  for (int64_t first = 0; first < blocks; first += kBatch) {
    const int64_t count = std::min(kBatch, blocks - first);
#pragma omp parallel for if (count > 8)
    for (int64_t b = 0; b < count; ++b) {
      const int64_t begin = (first + b) * kBlock, end = std::min(begin + kBlock, n);
      double sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = begin; i < end; ++i) sum += double(x[i]) * double(x[i]);
      partial[b] = sum;
    }
    for (int64_t b = 0; b < count; ++b) *a.sum.ptr<double>() += partial[b];
  }
}

}  // namespace

STRATA_CPU_KERNEL("adamw", AdamWArgs, adamw_cpu)
STRATA_CPU_KERNEL("squared_norm", SquaredNormArgs, squared_norm_cpu)

}  // namespace strata
