#include "core/ops/matmul.h"

#include "core/kernels/device.cuh"
#include "core/kernels/gemm_cuda.h"

namespace strata {
namespace {

template <class T>
void matmul_cuda(const MatmulArgs& s, Stream stream) {
  const int64_t batch = s.c.shape[0], m = s.c.shape[1], n = s.c.shape[2];
  const int64_t k = s.transpose_a ? s.a.shape[1] : s.a.shape[2];
  auto stride = [&](const Tensor& t) { return t.shape[0] == 1 ? 0 : t.shape[1] * t.pitch; };
  gemm_cuda_batched<T>(
      stream, s.transpose_a ? Trans::yes : Trans::no, s.transpose_b ? Trans::yes : Trans::no, m, n,
      k, T(s.alpha), s.a.ptr<T>(), s.a.pitch, stride(s.a), s.b.ptr<T>(), s.b.pitch, stride(s.b),
      s.accumulate ? T(1) : T(0), s.c.ptr<T>(), s.c.pitch, s.c.shape[1] * s.c.pitch, batch);
}

}  // namespace

STRATA_CUDA_KERNEL("matmul", MatmulArgs, matmul_cuda)

}  // namespace strata
