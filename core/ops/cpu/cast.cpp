#include "core/ops/cast.h"

#include "core/kernels/parallel.h"
#include "core/kernels/register.h"

namespace strata {
namespace {

template <class T, class Y>
void cast_rows(const CastArgs& a) {
  const int64_t d = a.x.cols();
  parallel_for(a.x.rows(), grain_for(d), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const T* x = a.x.row<T>(r);
      Y* y = a.y.row<Y>(r);
      if (a.accumulate)
        for (int64_t c = 0; c < d; ++c) y[c] += Y(x[c]);
      else
        for (int64_t c = 0; c < d; ++c) y[c] = Y(x[c]);
    }
  });
}

template <class T>
void cast_cpu(const CastArgs& a, Stream) {
  if (a.y.dtype == DType::f64) return cast_rows<T, double>(a);
  if (a.y.dtype == DType::f32) return cast_rows<T, float>(a);
  kernel_error("cast: the CPU has f32 and f64, got %s", name_of(a.y.dtype));
}

}  // namespace

STRATA_CPU_KERNEL("cast", CastArgs, cast_cpu)

}  // namespace strata
