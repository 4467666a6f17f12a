#include "core/ops/cast.h"

#include <type_traits>

#include "core/ops/cuda/elementwise.cuh"

namespace strata {
namespace {

template <class T, class Y>
struct Cast {
  using Sum = std::conditional_t<sizeof(Y) == 8, double, float>;
  Tensor x, y;
  bool accumulate;

  template <int V>
  __device__ void run(int64_t r, int64_t c) const {
    const Pack<T, V> p = load<T, V>(x, r, c);
    Pack<Sum, V> out;
#pragma unroll
    for (int i = 0; i < V; ++i) out[i] = Sum(wide(p[i]));
    put_accum<Y, V>(y.row<Y>(r) + c, out, accumulate);
  }
};

template <class T, class Y>
void cast_to(const CastArgs& a, Stream s) {
  using Smaller = std::conditional_t<(sizeof(T) < sizeof(Y)), T, Y>;
  each<Smaller>("cast", s, a.x.rows(), a.x.cols(), {&a.x, &a.y},
                Cast<T, Y>{a.x, a.y, a.accumulate});
}

template <class T>
void cast_cuda(const CastArgs& a, Stream s) {
  switch (a.y.dtype) {
    case DType::f32:
      return cast_to<T, float>(a, s);
    case DType::f64:
      return cast_to<T, double>(a, s);
    case DType::bf16:
      return cast_to<T, bf16>(a, s);
    case DType::f16:
      return cast_to<T, f16>(a, s);
    default:
      kernel_error("cast: there is no kernel to %s", name_of(a.y.dtype));
  }
}

}  // namespace

STRATA_CUDA_KERNEL("cast", CastArgs, cast_cuda)
STRATA_CUDA_HALF_KERNEL("cast", CastArgs, cast_cuda)

}  // namespace strata
