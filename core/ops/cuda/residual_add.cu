#include "core/ops/residual_add.h"

#include "core/ops/cuda/elementwise.cuh"

namespace strata {
namespace {

template <class T>
struct AddScaled {
  Tensor h, y, out;
  Accum<T> scale;
  bool accumulate;

  template <int V>
  __device__ void run(int64_t r, int64_t c) const {
    Pack<Accum<T>, V> p = widen(load<T, V>(y, r, c));
#pragma unroll
    for (int i = 0; i < V; ++i) p[i] *= scale;
    if (h.present || accumulate) {
      const Pack<Accum<T>, V> q = widen(load<T, V>(h.present ? h : out, r, c));
#pragma unroll
      for (int i = 0; i < V; ++i) p[i] += q[i];
    }
    store(out, r, c, narrow<T>(p));
  }
};

template <class T>
void residual_add_cuda(const ResidualAddArgs& a, Stream s) {
  const Tensor& h = a.h ? a.h : a.y;
  each<T>("residual_add", s, a.y.rows(), a.y.cols(), {&h, &a.y, &a.out},
          AddScaled<T>{a.h, a.y, a.out, Accum<T>(a.scale), a.accumulate});
}

}  // namespace

STRATA_CUDA_KERNEL("residual_add", ResidualAddArgs, residual_add_cuda)
STRATA_CUDA_HALF_KERNEL("residual_add", ResidualAddArgs, residual_add_cuda)

}  // namespace strata
