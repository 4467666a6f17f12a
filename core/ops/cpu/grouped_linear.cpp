#include "core/ops/grouped_linear.h"

#include "core/kernels/gemm.h"
#include "core/kernels/register.h"

namespace strata {
namespace {

// Calls item(g, begin, rows) for every group to describe its product, and runs them in batches.
template <class T, class F>
void run_groups(int64_t groups, const Tensor& offsets, Trans ta, Trans tb, T beta, const F& item) {
  constexpr int64_t kBatch = 128;
  GemmItem<T> items[kBatch];
  const int32_t* at = offsets.ptr<int32_t>();
  for (int64_t g0 = 0; g0 < groups; g0 += kBatch) {
    const int64_t n = groups - g0 < kBatch ? groups - g0 : kBatch;
    for (int64_t i = 0; i < n; ++i)
      items[i] = item(g0 + i, int64_t{at[g0 + i]}, int64_t{at[g0 + i + 1]} - at[g0 + i]);
    gemm_grouped<T>(n, items, ta, tb, 1, beta);
  }
}

template <class T>
void grouped_linear_cpu(const GroupedLinearArgs& a, Stream) {
  const int64_t groups = a.weight.shape[0], d_out = a.weight.shape[1], d_in = a.x.cols();
  run_groups<T>(groups, a.offsets, Trans::no, Trans::yes, 0,
                [&](int64_t g, int64_t begin, int64_t rows) {
                  return GemmItem<T>{rows,           d_out,
                                     d_in,           a.x.row<T>(begin),
                                     a.x.pitch,      a.weight.row<T>(g * d_out),
                                     a.weight.pitch, a.y.row<T>(begin),
                                     a.y.pitch};
                });
}

template <class T>
void grouped_linear_backward_cpu(const GroupedLinearBackwardArgs& a, Stream) {
  const int64_t groups = a.weight.shape[0], d_out = a.weight.shape[1], d_in = a.x.cols();
  if (a.dx.wanted)
    run_groups<T>(groups, a.offsets, Trans::no, Trans::no, a.dx.accumulate ? 1 : 0,
                  [&](int64_t g, int64_t begin, int64_t rows) {
                    return GemmItem<T>{rows,           d_in,
                                       d_out,          a.dy.row<T>(begin),
                                       a.dy.pitch,     a.weight.row<T>(g * d_out),
                                       a.weight.pitch, a.dx.grad.row<T>(begin),
                                       a.dx.grad.pitch};
                  });
  if (a.dweight.wanted)
    run_groups<T>(groups, a.offsets, Trans::yes, Trans::no, a.dweight.accumulate ? 1 : 0,
                  [&](int64_t g, int64_t begin, int64_t rows) {
                    return GemmItem<T>{d_out,
                                       d_in,
                                       rows,
                                       a.dy.row<T>(begin),
                                       a.dy.pitch,
                                       a.x.row<T>(begin),
                                       a.x.pitch,
                                       a.dweight.grad.row<T>(g * d_out),
                                       a.dweight.grad.pitch};
                  });
}

}  // namespace

STRATA_CPU_KERNEL("grouped_linear", GroupedLinearArgs, grouped_linear_cpu)
STRATA_CPU_KERNEL("grouped_linear_backward", GroupedLinearBackwardArgs, grouped_linear_backward_cpu)

}  // namespace strata
