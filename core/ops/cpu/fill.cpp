#include "core/ops/fill.h"

#include "core/kernels/register.h"

namespace strata {
namespace {

template <class T>
void fill_cpu(const FillArgs& a, Stream) {
  const int64_t rows = a.x.rows(), cols = a.x.cols();
  for (int64_t r = 0; r < rows; ++r) {
    T* x = a.x.row<T>(r);
    for (int64_t c = 0; c < cols; ++c) x[c] = T(a.value);
  }
}

}  // namespace

STRATA_CPU_KERNEL("fill", FillArgs, fill_cpu)
STRATA_KERNEL("fill", DeviceKind::cpu, DType::i64, FillArgs, fill_cpu<int64_t>)

}  // namespace strata
