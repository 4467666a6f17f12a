#include "core/ops/rms_norm.h"

#include <cmath>

#include "core/kernels/register.h"
#include "core/kernels/simd.h"
#include "core/ops/row_blocks.h"

namespace strata {
namespace {

constexpr int64_t kFork = 1 << 14;  // fewer elements than this do not pay for threads

// target (d,) = or += the sums over blocks of partial columns [offset, offset + d)
template <class T>
void sum_blocks(const GradTarget& target, const Tensor& partial, int64_t offset) {
  if (!target.wanted) return;
  const int64_t d = target.grad.numel();
  T* out = target.grad.ptr<T>();
  if (!target.accumulate)
    for (int64_t c = 0; c < d; ++c) out[c] = 0;
  for (int64_t block = 0; block < partial.rows(); ++block) {
    const T* p = partial.row<T>(block) + offset;
    for (int64_t c = 0; c < d; ++c) out[c] += p[c];
  }
}

// ------------------------------------------------------------------------------------- rms_norm
template <class T>
void rms_norm_cpu(const RmsNormArgs& a, Stream) {
  const int64_t rows = a.x.rows(), d = a.x.cols(), group = a.options.group;
  const T one = a.options.weight_plus_one ? 1 : 0;
  const T* w = a.weight.ptr<T>();
#pragma omp parallel for schedule(static) if (rows * d > kFork)
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t g = 0; g * group < d; ++g) {
      const T* x = a.x.row<T>(r) + g * group;
      T* y = a.y.row<T>(r) + g * group;
      T sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t c = 0; c < group; ++c) sum += x[c] * x[c];
      const T inv = T(1) / std::sqrt(sum / T(group) + T(a.options.eps));
      a.inv.row<T>(r)[g] = inv;
      if (w)
        for (int64_t c = 0; c < group; ++c) y[c] = x[c] * inv * (w[g * group + c] + one);
      else
        for (int64_t c = 0; c < group; ++c) y[c] = x[c] * inv;
    }
}

// With n = x inv and u = dy w:  dx = inv (u - n mean(u n)),  dw = sum over rows of dy n.
template <class T>
void rms_norm_backward_cpu(const RmsNormBackwardArgs& a, Stream) {
  const int64_t rows = a.x.rows(), d = a.x.cols(), group = a.options.group;
  const T one = a.options.weight_plus_one ? 1 : 0;
  const T* w = a.weight.ptr<T>();
  const RowBlocks blocks = row_blocks(rows);
#pragma omp parallel for schedule(static) if (rows * d > kFork)
  for (int64_t block = 0; block < blocks.count; ++block) {
    T* dw = a.dweight.wanted ? a.partial.row<T>(block) : nullptr;
    if (dw)
      for (int64_t c = 0; c < d; ++c) dw[c] = 0;
    for (int64_t r = blocks.begin(block); r < blocks.end(block); ++r)
      for (int64_t g = 0; g * group < d; ++g) {
        const int64_t at = g * group;
        const T *x = a.x.row<T>(r) + at, *dy = a.dy.row<T>(r) + at;
        const T inv = a.inv.row<T>(r)[g];
        if (dw)
          for (int64_t c = 0; c < group; ++c) dw[at + c] += dy[c] * x[c] * inv;
        if (!a.dx.wanted) continue;
        T dot = 0;
        if (w) {
#pragma omp simd reduction(+ : dot)
          for (int64_t c = 0; c < group; ++c) dot += dy[c] * (w[at + c] + one) * x[c];
        } else {
#pragma omp simd reduction(+ : dot)
          for (int64_t c = 0; c < group; ++c) dot += dy[c] * x[c];
        }
        const T pull = dot * inv * inv / T(group);
        T* dx = a.dx.grad.row<T>(r) + at;
        if (!a.dx.accumulate)
          for (int64_t c = 0; c < group; ++c) dx[c] = 0;
        if (w)
          for (int64_t c = 0; c < group; ++c)
            dx[c] += inv * (dy[c] * (w[at + c] + one) - x[c] * pull);
        else
          for (int64_t c = 0; c < group; ++c) dx[c] += inv * (dy[c] - x[c] * pull);
      }
  }
  sum_blocks<T>(a.dweight, a.partial, 0);
}

// ------------------------------------------------------------------------------- gated_rms_norm
template <class T>
void gated_rms_norm_cpu(const GatedRmsNormArgs& a, Stream) {
  const int64_t rows = a.x.rows(), d = a.x.cols(), group = a.options.group;
  const T one = a.options.weight_plus_one ? 1 : 0;
  const T* w = a.weight.ptr<T>();
#pragma omp parallel for schedule(static) if (rows * d > kFork / 4)
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t g = 0; g * group < d; ++g) {
      const int64_t at = g * group;
      const T *x = a.x.row<T>(r) + at, *z = a.z.row<T>(r) + at;
      T* y = a.y.row<T>(r) + at;
      for (int64_t c = 0; c < group; ++c) y[c] = simd::silu(z[c]);
      T sum = 0;
      if (a.norm_before_gate) {
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < group; ++c) sum += x[c] * x[c];
      } else {
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < group; ++c) sum += x[c] * y[c] * x[c] * y[c];
      }
      const T inv = T(1) / std::sqrt(sum / T(group) + T(a.options.eps));
      a.inv.row<T>(r)[g] = inv;
      if (w)
        for (int64_t c = 0; c < group; ++c) y[c] *= x[c] * inv * (w[at + c] + one);
      else
        for (int64_t c = 0; c < group; ++c) y[c] *= x[c] * inv;
    }
}

// Both orders have y = x s inv w with s = silu(z); they differ in what inv normalises: v = x s or
// v = x. With u = dy x s w and p = inv^2 mean(u):
//   dx = s inv w dy - p inv v dv/dx,   ds = x inv w dy - p inv v dv/ds,   dw = sum of dy x s inv.
template <class T>
void gated_rms_norm_backward_cpu(const GatedRmsNormBackwardArgs& a, Stream) {
  const int64_t rows = a.x.rows(), d = a.x.cols(), group = a.options.group;
  const T one = a.options.weight_plus_one ? 1 : 0;
  const T* w = a.weight.ptr<T>();
  const RowBlocks blocks = row_blocks(rows);
  const bool after = a.norm_before_gate;
#pragma omp parallel for schedule(static) if (rows * d > kFork / 4)
  for (int64_t block = 0; block < blocks.count; ++block) {
    T* dw = a.dweight.wanted ? a.partial.row<T>(block) : nullptr;
    if (dw)
      for (int64_t c = 0; c < d; ++c) dw[c] = 0;
    for (int64_t r = blocks.begin(block); r < blocks.end(block); ++r)
      for (int64_t g = 0; g * group < d; ++g) {
        const T inv = a.inv.row<T>(r)[g];
        constexpr int64_t kTile = 128;
        T pull = 0;
        // Two walks over the group: first the mean, then the gradients.
        for (int walk = 0; walk < 2; ++walk) {
          for (int64_t from = 0; from < group; from += kTile) {
            const int64_t at = g * group + from, n = group - from < kTile ? group - from : kTile;
            const T *x = a.x.row<T>(r) + at, *z = a.z.row<T>(r) + at, *dy = a.dy.row<T>(r) + at;
            T sig[kTile], u[kTile];  // u = dy w
            for (int64_t c = 0; c < n; ++c) sig[c] = simd::sigmoid(z[c]);
            for (int64_t c = 0; c < n; ++c) u[c] = w ? dy[c] * (w[at + c] + one) : dy[c];
            if (walk == 0) {
              T sum = 0;
#pragma omp simd reduction(+ : sum)
              for (int64_t c = 0; c < n; ++c) sum += u[c] * x[c] * z[c] * sig[c];
              pull += sum;
              if (dw)
                for (int64_t c = 0; c < n; ++c) dw[at + c] += dy[c] * x[c] * z[c] * sig[c] * inv;
              continue;
            }
            if (a.dx.wanted) {
              T* dx = a.dx.grad.row<T>(r) + at;
              if (!a.dx.accumulate)
                for (int64_t c = 0; c < n; ++c) dx[c] = 0;
              for (int64_t c = 0; c < n; ++c) {
                const T s = z[c] * sig[c], v = after ? x[c] : x[c] * s * s;
                dx[c] += inv * (u[c] * s - pull * v);
              }
            }
            if (a.dz.wanted) {
              T* dz = a.dz.grad.row<T>(r) + at;
              if (!a.dz.accumulate)
                for (int64_t c = 0; c < n; ++c) dz[c] = 0;
              for (int64_t c = 0; c < n; ++c) {
                const T s = z[c] * sig[c], v = after ? T(0) : x[c] * x[c] * s;
                dz[c] += inv * (u[c] * x[c] - pull * v) * sig[c] * (1 + z[c] * (1 - sig[c]));
              }
            }
          }
          pull *= inv * inv / T(group);
        }
      }
  }
  sum_blocks<T>(a.dweight, a.partial, 0);
}

// ----------------------------------------------------------------------------------- layer_norm
template <class T>
void layer_norm_cpu(const LayerNormArgs& a, Stream) {
  const int64_t rows = a.x.rows(), d = a.x.cols();
  const T one = a.options.weight_plus_one ? 1 : 0;
  const T *w = a.weight.ptr<T>(), *b = a.bias.ptr<T>();
#pragma omp parallel for schedule(static) if (rows * d > kFork)
  for (int64_t r = 0; r < rows; ++r) {
    const T* x = a.x.row<T>(r);
    T* y = a.y.row<T>(r);
    T sum = 0, square = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < d; ++c) sum += x[c];
    const T mean = sum / T(d);
#pragma omp simd reduction(+ : square)
    for (int64_t c = 0; c < d; ++c) square += (x[c] - mean) * (x[c] - mean);
    const T inv = T(1) / std::sqrt(square / T(d) + T(a.options.eps));
    a.stats.row<T>(r)[0] = mean;
    a.stats.row<T>(r)[1] = inv;
    for (int64_t c = 0; c < d; ++c) y[c] = (x[c] - mean) * inv;
    if (w)
      for (int64_t c = 0; c < d; ++c) y[c] *= w[c] + one;
    if (b)
      for (int64_t c = 0; c < d; ++c) y[c] += b[c];
  }
}

// With n = (x - mean) inv and u = dy w:  dx = inv (u - mean(u) - n mean(u n)).
template <class T>
void layer_norm_backward_cpu(const LayerNormBackwardArgs& a, Stream) {
  const int64_t rows = a.x.rows(), d = a.x.cols();
  const T one = a.options.weight_plus_one ? 1 : 0;
  const T* w = a.weight.ptr<T>();
  const RowBlocks blocks = row_blocks(rows);
  const bool sums = a.dweight.wanted || a.dbias.wanted;
#pragma omp parallel for schedule(static) if (rows * d > kFork)
  for (int64_t block = 0; block < blocks.count; ++block) {
    T* dw = sums ? a.partial.row<T>(block) : nullptr;
    if (sums)
      for (int64_t c = 0; c < 2 * d; ++c) dw[c] = 0;
    for (int64_t r = blocks.begin(block); r < blocks.end(block); ++r) {
      const T *x = a.x.row<T>(r), *dy = a.dy.row<T>(r);
      const T mean = a.stats.row<T>(r)[0], inv = a.stats.row<T>(r)[1];
      if (sums)
        for (int64_t c = 0; c < d; ++c) {
          dw[c] += dy[c] * (x[c] - mean) * inv;
          dw[d + c] += dy[c];
        }
      if (!a.dx.wanted) continue;
      T sum = 0, dot = 0;
#pragma omp simd reduction(+ : sum, dot)
      for (int64_t c = 0; c < d; ++c) {
        const T u = w ? dy[c] * (w[c] + one) : dy[c];
        sum += u;
        dot += u * (x[c] - mean);
      }
      const T shift = sum / T(d), pull = dot * inv * inv / T(d);
      T* dx = a.dx.grad.row<T>(r);
      if (!a.dx.accumulate)
        for (int64_t c = 0; c < d; ++c) dx[c] = 0;
      for (int64_t c = 0; c < d; ++c) {
        const T u = w ? dy[c] * (w[c] + one) : dy[c];
        dx[c] += inv * (u - shift - (x[c] - mean) * pull);
      }
    }
  }
  sum_blocks<T>(a.dweight, a.partial, 0);
  sum_blocks<T>(a.dbias, a.partial, d);
}

}  // namespace

STRATA_CPU_KERNEL("rms_norm", RmsNormArgs, rms_norm_cpu)
STRATA_CPU_KERNEL("rms_norm_backward", RmsNormBackwardArgs, rms_norm_backward_cpu)
STRATA_CPU_KERNEL("gated_rms_norm", GatedRmsNormArgs, gated_rms_norm_cpu)
STRATA_CPU_KERNEL("gated_rms_norm_backward", GatedRmsNormBackwardArgs, gated_rms_norm_backward_cpu)
STRATA_CPU_KERNEL("layer_norm", LayerNormArgs, layer_norm_cpu)
STRATA_CPU_KERNEL("layer_norm_backward", LayerNormBackwardArgs, layer_norm_backward_cpu)

}  // namespace strata
