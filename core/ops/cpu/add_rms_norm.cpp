#include "core/ops/add_rms_norm.h"

#include <cmath>

#include "core/kernels/register.h"

namespace strata {
namespace {

template <class T>
void add_rms_norm_cpu(const AddRmsNormArgs& a, Stream) {
  const int64_t rows = a.h.rows(), d = a.h.cols(), group = a.options.group;
  const T one = a.options.weight_plus_one ? 1 : 0, scale = T(a.scale);
  const T* w = a.weight.ptr<T>();
#pragma omp parallel for schedule(static) if (rows * d > 1 << 14)
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t g = 0; g * group < d; ++g) {
      const int64_t at = g * group;
      const T *h = a.h.row<T>(r) + at, *y = a.y.row<T>(r) + at;
      T *sum = a.sum.row<T>(r) + at, *n = a.n.row<T>(r) + at;
      T square = 0;
      for (int64_t c = 0; c < group; ++c) sum[c] = h[c] + scale * y[c];
#pragma omp simd reduction(+ : square)
      for (int64_t c = 0; c < group; ++c) square += sum[c] * sum[c];
      const T inv = T(1) / std::sqrt(square / T(group) + T(a.options.eps));
      a.inv.row<T>(r)[g] = inv;
      if (w)
        for (int64_t c = 0; c < group; ++c) n[c] = sum[c] * inv * (w[at + c] + one);
      else
        for (int64_t c = 0; c < group; ++c) n[c] = sum[c] * inv;
    }
}

}  // namespace

STRATA_CPU_KERNEL("add_rms_norm", AddRmsNormArgs, add_rms_norm_cpu)

}  // namespace strata
