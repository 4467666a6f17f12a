#include "core/ops/lm_head_loss.h"

#include <cmath>

#include "core/kernels/register.h"

namespace strata {
namespace {

template <class T>
static double cross_entropy_row(const CrossEntropyArgs& a, int64_t r, T gradient_scale) {
  const int64_t vocab_size = a.logits.cols();
  T* z = a.logits.row<T>(r);
  const int32_t label = a.labels.ptr<int32_t>()[r];
  if (a.predictions) a.predictions.ptr<int32_t>()[r] = -1;
  if (label == kNoLabel) {
    if (a.inverse_count)
      for (int64_t v = 0; v < vocab_size; ++v) z[v] = 0;
    return 0;
  }
  const T scale = T(a.logits_scale), cap = T(a.softcap);
  T largest = -INFINITY;
  int32_t first = 0;
  for (int64_t v = 0; v < vocab_size; ++v) {
    z[v] *= scale;
    if (cap > 0) z[v] = cap * std::tanh(z[v] / cap);
    if (z[v] > largest) {
      largest = z[v];
      first = int32_t(v);
    }
  }
  if (a.predictions) a.predictions.ptr<int32_t>()[r] = first;
  double sum = 0;
  for (int64_t v = 0; v < vocab_size; ++v) sum += double(std::exp(z[v] - largest));
  const double lse = double(largest) + std::log(sum);
  const double loss = lse - double(z[label]);
  if (!a.inverse_count) return loss;
  for (int64_t v = 0; v < vocab_size; ++v) {
    const T slope = cap > 0 ? 1 - (z[v] / cap) * (z[v] / cap) : T(1);
    const T p = T(std::exp(z[v] - T(lse))) - T(v == label);
    z[v] = gradient_scale * scale * slope * p;
  }
  return loss;
}

template <class T>
void cross_entropy_cpu(const CrossEntropyArgs& a, Stream) {
  const int64_t rows = a.logits.rows();
  double* row_loss = a.row_loss.ptr<double>();
  const T gradient_scale = a.inverse_count ? T(*a.inverse_count.ptr<double>()) : T(0);
#pragma omp parallel for if (rows * a.logits.cols() > 1 << 14)
  for (int64_t r = 0; r < rows; ++r) row_loss[r] = cross_entropy_row<T>(a, r, gradient_scale);
  for (int64_t r = 0; r < rows; ++r) {
    *a.loss.ptr<double>() += row_loss[r];
    *a.count.ptr<int64_t>() += a.labels.ptr<int32_t>()[r] != kNoLabel;
  }
}

}  // namespace

STRATA_CPU_KERNEL("cross_entropy", CrossEntropyArgs, cross_entropy_cpu)

}  // namespace strata
