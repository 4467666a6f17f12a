#include "core/ops/residual_add.h"

#include "core/kernels/register.h"

namespace strata {
namespace {

template <class T>
void residual_add_cpu(const ResidualAddArgs& a, Stream) {
  const int64_t rows = a.y.rows(), cols = a.y.cols();
  const T scale = T(a.scale);
#pragma omp parallel for if (rows * cols > 1 << 17)
  for (int64_t r = 0; r < rows; ++r) {
    const T* y = a.y.row<T>(r);
    T* out = a.out.row<T>(r);
    if (a.h) {
      const T* h = a.h.row<T>(r);
      for (int64_t c = 0; c < cols; ++c) out[c] = h[c] + scale * y[c];
    } else if (a.accumulate) {
      for (int64_t c = 0; c < cols; ++c) out[c] += scale * y[c];
    } else {
      for (int64_t c = 0; c < cols; ++c) out[c] = scale * y[c];
    }
  }
}

}  // namespace

STRATA_CPU_KERNEL("residual_add", ResidualAddArgs, residual_add_cpu)

}  // namespace strata
