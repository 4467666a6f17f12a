#include "core/ops/fill.h"

#include "core/ops/cuda/elementwise.cuh"

namespace strata {
namespace {

template <class T>
struct Fill {
  Tensor x;
  T value;

  template <int V>
  __device__ void run(int64_t r, int64_t c) const {
    Pack<T, V> p;
#pragma unroll
    for (int i = 0; i < V; ++i) p[i] = value;
    store(x, r, c, p);
  }
};

template <class T>
void fill_cuda(const FillArgs& a, Stream stream) {
  T value;
  if constexpr (is_half<T>)
    value = T(float(a.value));
  else
    value = T(a.value);
  each<T>("fill", stream, a.x.rows(), a.x.cols(), {&a.x}, Fill<T>{a.x, value});
}

}  // namespace

STRATA_CUDA_KERNEL("fill", FillArgs, fill_cuda)
STRATA_CUDA_HALF_KERNEL("fill", FillArgs, fill_cuda)
STRATA_KERNEL("fill", DeviceKind::cuda, DType::i64, FillArgs, fill_cuda<int64_t>)
STRATA_KERNEL("fill", DeviceKind::cuda, DType::i32, FillArgs, fill_cuda<int32_t>)

}  // namespace strata
