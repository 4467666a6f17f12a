#include "core/ops/adamw.h"

#include <algorithm>
#include <cmath>

#include "core/kernels/register.h"

namespace strata {
namespace {

// The upper half of each float32, rounded to nearest even.
template <class T>
void round_to_bf16(const T* from, uint16_t* to, int32_t count) {
  for (int32_t k = 0; k < count; ++k) {
    const float x = float(from[k]);
    uint32_t bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    to[k] = x == x ? uint16_t((bits + 0x7FFF + (bits >> 16 & 1)) >> 16) : uint16_t(bits >> 16 | 64);
  }
}

template <class T>
void adamw_cpu(const AdamWArgs& a, Stream) {
  const StepScalars& step = *a.scalars;
  if (step.apply == 0) return;
  const T b1 = T(a.beta1), b2 = T(a.beta2), eps = T(a.eps), clip = T(step.clip);
  const T root = T(1 / std::sqrt(step.correction2));
#pragma omp parallel for if (a.count > 1)
  for (int64_t i = 0; i < a.count; ++i) {
    const AdamWPiece& piece = a.pieces[i];
    const double lr = step.lr * piece.lr_scale;
    const T shrink = T(1 - lr * piece.decay), rate = T(lr / step.correction1);
    T* w = static_cast<T*>(piece.master ? piece.master : piece.value);
    const T* grad = static_cast<const T*>(piece.grad);
    T* m = static_cast<T*>(piece.m);
    T* v = static_cast<T*>(piece.v);
#pragma omp simd
    for (int32_t k = 0; k < piece.count; ++k) {
      const T g = clip * grad[k];
      m[k] = b1 * m[k] + (1 - b1) * g;
      v[k] = b2 * v[k] + (1 - b2) * g * g;
      w[k] = shrink * w[k] - rate * m[k] / (std::sqrt(v[k]) * root + eps);
    }
    if (piece.value_dtype == DType::bf16)
      round_to_bf16(w, static_cast<uint16_t*>(piece.value), piece.count);
  }
}

void settle_step_cpu(const SettleStepArgs& a, Stream) {
  StepScalars& s = *a.scalars;
  s.norm = std::sqrt(s.squares);
  s.clip = s.max_norm > 0 ? std::min(1.0, s.max_norm / (s.norm + 1e-6)) : 1.0;
  const double loss = a.loss ? *a.loss.ptr<double>() : 0;
  s.apply = std::isfinite(s.norm) && std::isfinite(loss) ? 1 : 0;
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
STRATA_KERNEL("settle_step", DeviceKind::cpu, DType::f64, SettleStepArgs, settle_step_cpu)

}  // namespace strata
