// Products of a warpgroup (four warps) on Hopper's matrix unit, for kernels on bf16 and f16: the
// left operand in registers, the right one in shared memory, sums in float32. Everything works on
// sm_90a only; elsewhere the bodies are empty and has_warpgroup_mma() is false.
//
// A warpgroup multiplies d (64, N) += a (64, 16) b (16, N). Its warp w holds rows 16 w to 16 w + 15
// of d and a, laid out as the tiles of mma.cuh, with d[i] for columns 8 i to 8 i + 7.
//
// b lies in panels of 64 two-byte columns: rows of 128 bytes, whose eight 16-byte cells are swapped
// as panel_cell says. A panel starts on 1024 bytes.
#pragma once

#include "core/kernels/cuda_path.h"
#include "core/kernels/mma.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define STRATA_WARPGROUP_MMA 1
#endif

namespace strata {

// Has shared memory only where the build has code for sm_90a: another build leaves the bodies out.
static __global__ void warpgroup_probe_kernel(int* out) {
#ifdef STRATA_WARPGROUP_MMA
  __shared__ int room[32];
  room[threadIdx.x % 32] = int(threadIdx.x);
  __syncthreads();
  *out = room[(threadIdx.x + 1) % 32];
#endif
}

// Whether this device has these products, this build too, and they may be used.
inline bool has_warpgroup_mma() {
  if (cuda_path() != CudaPath::best) return false;
  int device = 0, major = 0, minor = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "device");
  check_cuda(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "device");
  if (major != 9 || minor != 0) return false;
  cudaFuncAttributes attributes{};
  check_cuda(cudaFuncGetAttributes(&attributes, warpgroup_probe_kernel), "wgmma");
  return attributes.sharedSizeBytes > 0;
}

// Element offset of 16-byte cell `cell` (0 to 7) of row `row` in a panel.
STRATA_INLINE int panel_cell(int row, int cell) { return row * 64 + (cell ^ row % 8) * 8; }

#ifdef __CUDACC__

// What the matrix unit needs to know of a panel of `rows` rows at a shared address.
// As (N rows, 16 columns), so that a row is a column of b: for 16 columns from `column`.
__device__ __forceinline__ uint64_t panel_by_rows(uint32_t address, int column) {
  const uint64_t start = (address + column * 2) >> 4;
  return start | uint64_t(1) << 16 | uint64_t(1024 >> 4) << 32 | uint64_t(1) << 62;
}
// As (16 rows, N columns), the rows of b: for 16 rows from `row`, with `bytes` from panel to panel
// of 64 columns.
__device__ __forceinline__ uint64_t panel_by_columns(uint32_t address, int row, int bytes) {
  const uint64_t start = (address + row * 128) >> 4;
  return start | uint64_t(bytes >> 4) << 16 | uint64_t(1024 >> 4) << 32 | uint64_t(1) << 62;
}

// Before the first product after other code wrote d or a; after all products that go together;
// until at most kPending such groups are under way.
__device__ __forceinline__ void begin_products() {
#ifdef STRATA_WARPGROUP_MMA
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void commit_products() {
#ifdef STRATA_WARPGROUP_MMA
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
template <int kPending>
__device__ __forceinline__ void wait_products() {
#ifdef STRATA_WARPGROUP_MMA
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
#endif
}
// Keeps the compiler from moving reads and writes of d across this place.
template <int kTiles>
__device__ __forceinline__ void pin_products(float (&d)[kTiles][4]) {
#pragma unroll
  for (int i = 0; i < kTiles; ++i)
    asm volatile("" : "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])::"memory");
}
// What this thread wrote to shared memory becomes visible to products begun after a barrier.
__device__ __forceinline__ void publish_to_products() {
#ifdef STRATA_WARPGROUP_MMA
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

#ifdef STRATA_WARPGROUP_MMA
#define STRATA_SUMS_1(d, i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define STRATA_SUMS_4(d, i) \
  STRATA_SUMS_1(d, i), STRATA_SUMS_1(d, i + 1), STRATA_SUMS_1(d, i + 2), STRATA_SUMS_1(d, i + 3)
#define STRATA_SUMS_8(d, i) STRATA_SUMS_4(d, i), STRATA_SUMS_4(d, i + 4)
#define STRATA_REGISTERS_32                                                \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define STRATA_REGISTERS_64                                                          \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#endif

// d += a b, when wait_products says so; d starts at zero or as what it was. kColumns: b as
// panel_by_columns gives it, else as panel_by_rows.
template <class T, bool kColumns, int kTiles>
__device__ __forceinline__ void add_product(float (&d)[kTiles][4], const uint32_t (&a)[4],
                                            uint64_t b) {
  static_assert(is_half<T> && (kTiles == 8 || kTiles == 16));
#ifdef STRATA_WARPGROUP_MMA
  constexpr bool kBf16 = dtype_of<T>() == DType::bf16;
  if constexpr (kTiles == 8 && kBf16 && !kColumns)
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" STRATA_REGISTERS_32
                 "}, "
                 "{%32, %33, %34, %35}, %36, 1, 1, 1, 0;"
                 : STRATA_SUMS_8(d, 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  else if constexpr (kTiles == 8 && kBf16 && kColumns)
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" STRATA_REGISTERS_32
                 "}, "
                 "{%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
                 : STRATA_SUMS_8(d, 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  else if constexpr (kTiles == 8 && !kBf16 && !kColumns)
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" STRATA_REGISTERS_32
                 "}, "
                 "{%32, %33, %34, %35}, %36, 1, 1, 1, 0;"
                 : STRATA_SUMS_8(d, 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  else if constexpr (kTiles == 8 && !kBf16 && kColumns)
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" STRATA_REGISTERS_32
                 "}, "
                 "{%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
                 : STRATA_SUMS_8(d, 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  else if constexpr (kTiles == 16 && kBf16 && !kColumns)
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" STRATA_REGISTERS_64
                 "}, "
                 "{%64, %65, %66, %67}, %68, 1, 1, 1, 0;"
                 : STRATA_SUMS_8(d, 0), STRATA_SUMS_8(d, 8)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  else if constexpr (kTiles == 16 && kBf16 && kColumns)
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" STRATA_REGISTERS_64
                 "}, "
                 "{%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
                 : STRATA_SUMS_8(d, 0), STRATA_SUMS_8(d, 8)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  else if constexpr (kTiles == 16 && !kBf16 && !kColumns)
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" STRATA_REGISTERS_64
                 "}, "
                 "{%64, %65, %66, %67}, %68, 1, 1, 1, 0;"
                 : STRATA_SUMS_8(d, 0), STRATA_SUMS_8(d, 8)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  else if constexpr (kTiles == 16 && !kBf16 && kColumns)
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" STRATA_REGISTERS_64
                 "}, "
                 "{%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
                 : STRATA_SUMS_8(d, 0), STRATA_SUMS_8(d, 8)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
#endif
}

#endif

}  // namespace strata
