#include "core/ops/residual_add.h"

#include "core/ops/cuda/elementwise.cuh"

namespace strata {
namespace {

template <class T>
struct AddScaled {
  Tensor h, y, out;
  T scale;
  bool accumulate;

  template <int V>
  __device__ void run(int64_t r, int64_t c) const {
    Pack<T, V> p = load<T, V>(y, r, c);
#pragma unroll
    for (int i = 0; i < V; ++i) p[i] *= scale;
    if (h.present) {
      const Pack<T, V> q = load<T, V>(h, r, c);
#pragma unroll
      for (int i = 0; i < V; ++i) p[i] += q[i];
    }
    put_pack(out, r, c, p, accumulate && !h.present);
  }
};

template <class T>
void residual_add_cuda(const ResidualAddArgs& a, Stream s) {
  const Tensor& h = a.h ? a.h : a.y;
  each<T>("residual_add", s, a.y.rows(), a.y.cols(), {&h, &a.y, &a.out},
          AddScaled<T>{a.h, a.y, a.out, T(a.scale), a.accumulate});
}

}  // namespace

STRATA_CUDA_KERNEL("residual_add", ResidualAddArgs, residual_add_cuda)

}  // namespace strata
