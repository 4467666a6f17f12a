#include "core/ops/lm_head_loss.h"

#include <cmath>

#include "core/kernels/parallel.h"
#include "core/kernels/register.h"
#include "core/kernels/simd.h"

namespace strata {
namespace {

// z = softcap(scale z); the largest of them.
template <class T>
STRATA_INLINE T finish_logits(T* z, int64_t n, T scale, T cap) {
  T largest = -INFINITY;
  if (scale != 1)
    for (int64_t v = 0; v < n; ++v) z[v] *= scale;
  if (cap > 0)
    for (int64_t v = 0; v < n; ++v) z[v] = cap * simd::tanh(z[v] / cap);
#pragma omp simd reduction(max : largest)
  for (int64_t v = 0; v < n; ++v) largest = z[v] > largest ? z[v] : largest;
  return largest;
}

// The sum of e^(z - largest): pieces in the vector's order, then in double.
template <class T>
STRATA_INLINE double sum_of_exp(const T* z, int64_t n, T largest) {
  double total = 0;
  constexpr int64_t kPiece = 1024;
  for (int64_t begin = 0; begin < n; begin += kPiece) {
    const int64_t end = begin + kPiece < n ? begin + kPiece : n;
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t v = begin; v < end; ++v) sum += simd::exp(z[v] - largest);
    total += double(sum);
  }
  return total;
}

// z = factor * (pull softmax(z) - onehot(label)), through the softcap
template <class T>
STRATA_INLINE void replace_by_gradient(T* z, int64_t n, T lse, int32_t label, T factor, T pull,
                                       T cap) {
  const T hit = cap > 0 ? factor * (1 - (z[label] / cap) * (z[label] / cap)) : factor;
  if (cap > 0)
    for (int64_t v = 0; v < n; ++v)
      z[v] = factor * pull * (1 - (z[v] / cap) * (z[v] / cap)) * simd::exp(z[v] - lse);
  else
    for (int64_t v = 0; v < n; ++v) z[v] = factor * pull * simd::exp(z[v] - lse);
  z[label] -= hit;
}

template <class T>
double cross_entropy_row(const CrossEntropyArgs& a, int64_t r, T gradient_scale) {
  const int64_t n = a.logits.cols();
  T* z = a.logits.row<T>(r);
  const int32_t label = a.labels.ptr<int32_t>()[r];
  int32_t* prediction = a.predictions ? a.predictions.ptr<int32_t>() + r : nullptr;
  if (prediction) *prediction = -1;
  if (label == kNoLabel) {
    if (a.inverse_count)
      for (int64_t v = 0; v < n; ++v) z[v] = 0;
    return 0;
  }
  const T scale = T(a.logits_scale), cap = T(a.softcap);
  const T largest = finish_logits(z, n, scale, cap);
  if (prediction) {
    int64_t v = 0;
    while (v < n && z[v] != largest) ++v;
    *prediction = v < n ? int32_t(v) : 0;
  }
  const double lse = double(largest) + std::log(sum_of_exp(z, n, largest));
  const double loss = lse - double(z[label]) + a.z_loss * lse * lse;
  if (a.inverse_count)
    replace_by_gradient(z, n, T(lse), label, gradient_scale * scale, T(1 + 2 * a.z_loss * lse),
                        cap);
  return loss;
}

template <class T>
void cross_entropy_cpu(const CrossEntropyArgs& a, Stream) {
  const int64_t rows = a.logits.rows(), vocab_size = a.logits.cols();
  const int32_t* labels = a.labels.ptr<int32_t>();
  double* row_loss = a.row_loss.ptr<double>();
  for (int64_t r = 0; r < rows; ++r)
    if (labels[r] != kNoLabel && (labels[r] < 0 || labels[r] >= vocab_size))
      kernel_error("label %d is outside of the vocabulary of %ld", labels[r], long(vocab_size));
  const T gradient_scale = a.inverse_count ? T(*a.inverse_count.ptr<double>()) : T(0);
  parallel_for(rows, grain_for(16 * vocab_size), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) row_loss[r] = cross_entropy_row<T>(a, r, gradient_scale);
  });
  for (int64_t r = 0; r < rows; ++r) {
    *a.loss.ptr<double>() += row_loss[r];
    *a.count.ptr<int64_t>() += labels[r] != kNoLabel;
  }
}

}  // namespace

STRATA_CPU_KERNEL("cross_entropy", CrossEntropyArgs, cross_entropy_cpu)

}  // namespace strata
