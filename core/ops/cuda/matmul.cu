#include "core/ops/matmul.h"

#include "core/kernels/device.cuh"
#include "core/kernels/gemm_cuda.h"

namespace strata {
namespace {

template <class T, class C>
void product(const MatmulArgs& s, Stream stream) {
  using A = Accum<T>;
  const int64_t batch = s.c.shape[0], m = s.c.shape[1], n = s.c.shape[2];
  const int64_t k = s.transpose_a ? s.a.shape[1] : s.a.shape[2];
  auto stride = [&](const Tensor& t) { return t.shape[0] == 1 ? 0 : t.shape[1] * t.pitch; };
  gemm_cuda_batched<T, C>(stream, s.transpose_a ? Trans::yes : Trans::no,
                          s.transpose_b ? Trans::yes : Trans::no, m, n, k, A(s.alpha), s.a.ptr<T>(),
                          s.a.pitch, stride(s.a), s.b.ptr<T>(), s.b.pitch, stride(s.b),
                          s.accumulate ? A(1) : A(0), s.c.ptr<C>(), s.c.pitch, stride(s.c), batch);
}

// The gradient of a parameter is of float where the operands have two bytes.
template <class T>
void matmul_cuda(const MatmulArgs& s, Stream stream) {
  if (s.c.dtype == dtype_of<T>())
    product<T, T>(s, stream);
  else if (is_half<T> && s.c.dtype == DType::f32)
    product<T, Accum<T>>(s, stream);
  else
    kernel_error("matmul: the result of %s operands cannot be %s", name_of(dtype_of<T>()),
                 name_of(s.c.dtype));
}

}  // namespace

STRATA_CUDA_KERNEL("matmul", MatmulArgs, matmul_cuda)
STRATA_CUDA_HALF_KERNEL("matmul", MatmulArgs, matmul_cuda)

}  // namespace strata
