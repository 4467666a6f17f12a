// The instructions of the skinny product: loads that stream, products in tensor cores, and the
// overlap of a kernel with the one before it.
#pragma once

#include "core/kernels/cuda_path.h"
#include "core/kernels/skinny_cuda.h"
#include "core/ops/cuda/pack.cuh"

namespace strata {
namespace {

constexpr int kStep = 32;  // columns of W a warp takes at once

// 16 bytes that are read once, or zeros. The neighbours in memory are wanted soon.
__device__ __forceinline__ void stream_in(uint32_t (&to)[4], const void* from, bool wanted) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %5, 0;\n"
      "mov.b32 %0, 0;\nmov.b32 %1, 0;\nmov.b32 %2, 0;\nmov.b32 %3, 0;\n"
      "@p ld.global.nc.L1::no_allocate.L2::256B.v4.b32 {%0, %1, %2, %3}, [%4];\n}"
      : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
      : "l"(from), "r"(int(wanted)));
}
// 16 bytes that other warps read too, or zeros.
__device__ __forceinline__ void read_in(uint32_t (&to)[4], const void* from, bool wanted) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %5, 0;\n"
      "mov.b32 %0, 0;\nmov.b32 %1, 0;\nmov.b32 %2, 0;\nmov.b32 %3, 0;\n"
      "@p ld.global.v4.b32 {%0, %1, %2, %3}, [%4];\n}"
      : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
      : "l"(from), "r"(int(wanted)));
}

// The next kernel of the stream may begin; and: all before this one are done.
__device__ __forceinline__ void let_next_begin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
__device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// sum (16 rows, 8 columns) += a (16, 16) b (16, 8)
template <class T>
__device__ __forceinline__ void multiply_add(float (&sum)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                             uint32_t a3, uint32_t b0, uint32_t b1) {
  if constexpr (dtype_of<T>() == DType::bf16)
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// What happens to a sum on its way to y.
template <class T>
__device__ __forceinline__ void finish(const SkinnyProduct<T>& a, int r, int64_t n, float z) {
  if (a.bias) z += wide(a.bias[n]);
  if (a.relu2) z = z > 0 ? z * z : 0;
  if (a.residual) z += wide(a.residual[r * a.ld_residual + n]);
  a.y[r * a.ld_y + n] = narrow_to<T>(z);
}

int device_attribute(cudaDeviceAttr what) {
  int device = 0, value = 0;
  check_cuda(cudaGetDevice(&device), "skinny product");
  check_cuda(cudaDeviceGetAttribute(&value, what, device), "skinny product");
  return value;
}
int multiprocessors() {
  static const int count = device_attribute(cudaDevAttrMultiProcessorCount);
  return count;
}
int64_t most_shared() {
  static const int bytes = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  return bytes;
}

// Whether a kernel may begin while the one before it ends.
bool overlaps() {
  static const bool can = device_attribute(cudaDevAttrComputeCapabilityMajor) >= 9;
  return can && cuda_path() == CudaPath::best;
}

}  // namespace
}  // namespace strata
