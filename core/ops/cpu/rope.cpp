#include "core/ops/rope.h"

#include "core/kernels/parallel.h"
#include "core/kernels/register.h"
#include "core/kernels/vec.h"

namespace strata {
namespace {

// cos and sin of n angles, in straight-line code over arrays so that it becomes vector code. Angles
// are reduced to [-pi/4, pi/4] with pi/2 in two parts; there the Taylor series of order 16 is exact
// to double precision.
template <class T>
inline void cos_sin(int n, double position, const double* frequencies, T* cosines, T* sines) {
  constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52: leaves round(x) in the low bits
  for (int i = 0; i < n; ++i) {
    const double a = position * frequencies[i];
    const double t = a * 0.6366197723675814 + kRound;
    const int64_t quarter = __builtin_bit_cast(int64_t, t);
    const double k = t - kRound;
    const double r = (a - k * 1.5707963267948966) - k * 6.123233995736766e-17;
    const double z = r * r;
    double s = -7.647163731819816e-13;
    s = s * z + 1.605904383682161e-10;
    s = s * z - 2.505210838544172e-08;
    s = s * z + 2.755731922398589e-06;
    s = s * z - 1.984126984126984e-04;
    s = s * z + 8.333333333333333e-03;
    s = s * z - 1.666666666666667e-01;
    s = s * z * r + r;
    double c = 4.779477332387385e-14;
    c = c * z - 1.147074559772973e-11;
    c = c * z + 2.087675698786810e-09;
    c = c * z - 2.755731922398589e-07;
    c = c * z + 2.480158730158730e-05;
    c = c * z - 1.388888888888889e-03;
    c = c * z + 4.166666666666666e-02;
    c = c * z - 0.5;
    c = c * z + 1.0;
    const double x = quarter & 1 ? s : c, y = quarter & 1 ? c : s;
    cosines[i] = T((quarter + 1) & 2 ? -x : x);
    sines[i] = T(quarter & 2 ? -y : y);
  }
}

// One head: y (+)= x turned.
template <class T, bool kAdd>
inline void turn(const T* x, T* y, const T* c, const T* s, int64_t pairs, int64_t dim) {
  for (int64_t i = 0; i < pairs; ++i) {
    const T a = x[i], b = x[i + pairs];
    const T low = a * c[i] - b * s[i], high = b * c[i] + a * s[i];
    y[i] = kAdd ? y[i] + low : low;
    y[i + pairs] = kAdd ? y[i + pairs] + high : high;
  }
  for (int64_t i = 2 * pairs; i < dim; ++i) y[i] = kAdd ? y[i] + x[i] : x[i];
}

template <class T>
void rope_cpu(const RopeArgs& a, Stream) {
  const int64_t heads = a.x.cols() / a.head_dim;
  parallel_for(a.x.rows(), grain_for(4 * a.x.cols()), [&](int64_t begin, int64_t end) {
    T c[kMaxRotaryPairs], s[kMaxRotaryPairs];
    for (int64_t r = begin; r < end; ++r) {
      const double position = a.positions.ptr<int32_t>()[r];
      cos_sin(a.pairs, a.inverse ? -position : position, a.frequencies, c, s);
      const T* x = a.x.row<T>(r);
      T* y = a.y.row<T>(r);
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t at = h * a.head_dim;
        if (a.accumulate) {
          turn<T, true>(x + at, y + at, c, s, a.pairs, a.head_dim);
        } else {
          turn<T, false>(x + at, y + at, c, s, a.pairs, a.head_dim);
        }
      }
    }
  });
}

STRATA_CPU_KERNEL("rope", RopeArgs, rope_cpu)

}  // namespace
}  // namespace strata
