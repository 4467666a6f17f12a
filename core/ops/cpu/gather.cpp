#include "core/ops/gather.h"

#include "core/kernels/parallel.h"
#include "core/kernels/register.h"

namespace strata {
namespace {

void check(const char* op, const Tensor& index, int64_t n) {
  const int32_t* at = index.ptr<int32_t>();
  for (int64_t i = 0; i < index.numel(); ++i)
    if (at[i] >= n || at[i] < -1)
      kernel_error("%s: index %d at place %ld is outside of [0, %ld)", op, at[i], long(i), long(n));
}

template <class T>
void gather_cpu(const GatherArgs& a, Stream) {
  const int64_t d = a.x.cols();
  const int32_t* index = a.index.ptr<int32_t>();
  check("gather", a.index, a.x.rows());
  parallel_for(a.index.numel(), grain_for(d), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      T* y = a.y.row<T>(i);
      if (!a.accumulate)
        for (int64_t c = 0; c < d; ++c) y[c] = 0;
      if (index[i] < 0) continue;
      const T* x = a.x.row<T>(index[i]);
      for (int64_t c = 0; c < d; ++c) y[c] += x[c];
    }
  });
}

// Columns are split among threads, not rows: every element sums its rows in their order.
template <class T>
void scatter_add_cpu(const ScatterAddArgs& a, Stream) {
  const int64_t d = a.x.cols(), m = a.index.numel();
  const int32_t* index = a.index.ptr<int32_t>();
  check("scatter_add", a.index, a.y.rows());
  constexpr int64_t kCols = 64;
  parallel_for((d + kCols - 1) / kCols, grain_for((m + a.y.rows()) * kCols),
               [&](int64_t first, int64_t last) {
                 const int64_t begin = first * kCols, end = last * kCols < d ? last * kCols : d;
                 if (!a.accumulate)
                   for (int64_t r = 0; r < a.y.rows(); ++r)
                     for (int64_t c = begin; c < end; ++c) a.y.row<T>(r)[c] = 0;
                 for (int64_t i = 0; i < m; ++i) {
                   if (index[i] < 0) continue;
                   const T* x = a.x.row<T>(i);
                   T* y = a.y.row<T>(index[i]);
                   for (int64_t c = begin; c < end; ++c) y[c] += x[c];
                 }
               });
}

}  // namespace

STRATA_CPU_KERNEL("gather", GatherArgs, gather_cpu)
STRATA_CPU_KERNEL("scatter_add", ScatterAddArgs, scatter_add_cpu)

}  // namespace strata
