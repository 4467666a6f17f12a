#include "core/kernels/activation.h"

#include "core/kernels/parallel.h"
#include "core/kernels/register.h"

namespace strata {
namespace {

constexpr int64_t kWork = 8;  // simple operations per element, about

template <class T>
void activation_cpu(const ActivationArgs& a, Stream) {
  const int64_t d = a.x.cols();
  with_activation(a.act, [&](auto act) {
    parallel_for(a.x.rows(), grain_for(kWork * d), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* x = a.x.row<T>(r);
        T* y = a.y.row<T>(r);
        for (int64_t c = 0; c < d; ++c) y[c] = act_of<decltype(act)::value>(x[c]);
      }
    });
  });
}

template <class T>
void activation_backward_cpu(const ActivationBackwardArgs& a, Stream) {
  const int64_t d = a.x.cols();
  with_activation(a.act, [&](auto act) {
    parallel_for(a.x.rows(), grain_for(kWork * d), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T *x = a.x.row<T>(r), *dy = a.dy.row<T>(r);
        T* dx = a.dx.grad.row<T>(r);
        if (a.dx.accumulate)
          for (int64_t c = 0; c < d; ++c) dx[c] += dy[c] * act_slope<decltype(act)::value>(x[c]);
        else
          for (int64_t c = 0; c < d; ++c) dx[c] = dy[c] * act_slope<decltype(act)::value>(x[c]);
      }
    });
  });
}

template <class T>
void gated_cpu(const GatedArgs& a, Stream) {
  const int64_t d = a.up.cols();
  with_activation(a.act, [&](auto act) {
    parallel_for(a.up.rows(), grain_for(kWork * d), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T *gate = a.gate.row<T>(r), *up = a.up.row<T>(r);
        T* y = a.y.row<T>(r);
        for (int64_t c = 0; c < d; ++c) y[c] = act_of<decltype(act)::value>(gate[c]) * up[c];
      }
    });
  });
}

template <class T>
void gated_backward_cpu(const GatedBackwardArgs& a, Stream) {
  const int64_t d = a.up.cols();
  with_activation(a.act, [&](auto act) {
    constexpr Activation A = decltype(act)::value;
    parallel_for(a.up.rows(), grain_for(2 * kWork * d), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T *gate = a.gate.row<T>(r), *up = a.up.row<T>(r), *dy = a.dy.row<T>(r);
        T* dgate = a.dgate.wanted ? a.dgate.grad.row<T>(r) : nullptr;
        T* dup = a.dup.wanted ? a.dup.grad.row<T>(r) : nullptr;
        if (dgate && dup && !a.dgate.accumulate && !a.dup.accumulate) {
          for (int64_t c = 0; c < d; ++c) {
            dgate[c] = dy[c] * up[c] * act_slope<A>(gate[c]);
            dup[c] = dy[c] * act_of<A>(gate[c]);
          }
          continue;
        }
        if (dgate)
          for (int64_t c = 0; c < d; ++c)
            dgate[c] =
                (a.dgate.accumulate ? dgate[c] : T(0)) + dy[c] * up[c] * act_slope<A>(gate[c]);
        if (dup)
          for (int64_t c = 0; c < d; ++c)
            dup[c] = (a.dup.accumulate ? dup[c] : T(0)) + dy[c] * act_of<A>(gate[c]);
      }
    });
  });
}

}  // namespace

STRATA_CPU_KERNEL("activation", ActivationArgs, activation_cpu)
STRATA_CPU_KERNEL("activation_backward", ActivationBackwardArgs, activation_backward_cpu)
STRATA_CPU_KERNEL("gated", GatedArgs, gated_cpu)
STRATA_CPU_KERNEL("gated_backward", GatedBackwardArgs, gated_backward_cpu)

}  // namespace strata
