// What the skinny product is made of: loads that stream, the end of a sum, and what the device has.
#pragma once

#include "core/kernels/cuda_path.h"
#include "core/kernels/mma.cuh"
#include "core/kernels/pack.cuh"
#include "core/kernels/skinny_cuda.h"

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

// What happens to a sum on its way to y.
template <class T>
__device__ __forceinline__ void finish(const SkinnyProduct<T>& a, int r, int64_t n, float z) {
  if (a.bias) z += wide(a.bias[n]);
  if (a.relu2) z = z > 0 ? z * z : 0;
  if (a.residual) z += wide(a.residual[r * a.ld_residual + n]);
  a.y[r * a.ld_y + n] = narrow_to<T>(z);
}

constexpr const char* kSkinny = "skinny product";

int multiprocessors() {
  static const int count = device_attribute(cudaDevAttrMultiProcessorCount, kSkinny);
  return count;
}
int64_t most_shared() {
  static const int bytes = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, kSkinny);
  return bytes;
}

// Whether a kernel may begin while the one before it ends.
bool overlaps() {
  static const bool can = device_attribute(cudaDevAttrComputeCapabilityMajor, kSkinny) >= 9;
  return can && cuda_path() == CudaPath::best;
}

}  // namespace
}  // namespace strata
