// Products of a warpgroup (four warps) on Hopper's matrix unit, for kernels on bf16 and f16: the
// left operand in registers or shared memory, the right one in shared memory, sums in float32. Only
// code for sm_90a has them, under STRATA_WARPGROUP_MMA: elsewhere kernels that use them have no
// body and has_warpgroup_mma() is false.
//
// A warpgroup multiplies d (64, N) += a (64, 16) b (16, N). Its warp w holds rows 16 w to 16 w + 15
// of d and a, laid out as the tiles of mma.cuh, with d[i] for columns 8 i to 8 i + 7.
//
// In shared memory a and b lie in panels of 64 two-byte columns: rows of 128 bytes, whose eight
// 16-byte cells are swapped as panel_cell says. A panel starts on 1024 bytes.
#pragma once

#include "core/kernels/cuda_path.h"
#include "core/kernels/mma.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define STRATA_WARPGROUP_MMA 1
#endif

namespace strata {

constexpr int kPanelColumns = 64;

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
STRATA_INLINE int panel_cell(int row, int cell) {
  return row * kPanelColumns + (cell ^ row % 8) * 8;
}

#ifdef STRATA_WARPGROUP_MMA

// What the matrix unit needs to know of a panel of `rows` rows at a shared address.
// As (rows, 16 columns), so that the sum runs along its columns: for 16 columns from `column`. Add
// 2 to move on by 16 columns.
__device__ __forceinline__ uint64_t panel_by_rows(uint32_t address, int column) {
  const uint64_t start = (address + column * 2) >> 4;
  return start | uint64_t(1) << 16 | uint64_t(1024 >> 4) << 32 | uint64_t(1) << 62;
}
// As (16 rows, columns), so that the sum runs along its rows: for 16 rows from `row`, with `bytes`
// from panel to panel of 64 columns. Add 128 to move on by 16 rows.
__device__ __forceinline__ uint64_t panel_by_columns(uint32_t address, int row, int bytes) {
  const uint64_t start = (address + row * 128) >> 4;
  return start | uint64_t(bytes >> 4) << 16 | uint64_t(1024 >> 4) << 32 | uint64_t(1) << 62;
}

// Before the first product after other code wrote d or a; after all products that go together;
// until at most kPending such groups are under way.
__device__ __forceinline__ void begin_products() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Keeps the compiler from moving uses of d across: products write it behind its back.
template <int kTiles>
__device__ __forceinline__ void pin(float (&d)[kTiles][4]) {
#pragma unroll
  for (int i = 0; i < kTiles; ++i)
#pragma unroll
    for (int e = 0; e < 4; ++e) asm volatile("" : "+f"(d[i][e])::"memory");
}
// What this thread wrote to shared memory is seen by copies and products after the next barrier.
__device__ __forceinline__ void publish_shared() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
// Barrier `id` among `threads` threads; the second form does not wait.
__device__ __forceinline__ void sync_some(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void arrive_some(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
// A warpgroup goes down to, or up to, so many registers a thread: one gives, another takes.
template <int kRegisters>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// The operands of the instructions: sums d[i] and their registers, in order.
#define STRATA_SUMS_1(d, i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define STRATA_SUMS_4(d, i) \
  STRATA_SUMS_1(d, i), STRATA_SUMS_1(d, i + 1), STRATA_SUMS_1(d, i + 2), STRATA_SUMS_1(d, i + 3)
#define STRATA_SUMS_8(d, i) STRATA_SUMS_4(d, i), STRATA_SUMS_4(d, i + 4)
#define STRATA_SUMS_16(d, i) STRATA_SUMS_8(d, i), STRATA_SUMS_8(d, i + 8)
#define STRATA_SUMS_32(d, i) STRATA_SUMS_16(d, i), STRATA_SUMS_16(d, i + 16)
#define STRATA_REGISTERS_32                                                \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define STRATA_REGISTERS_64                                                            \
  STRATA_REGISTERS_32                                                                  \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define STRATA_REGISTERS_128                                                                     \
  STRATA_REGISTERS_64                                                                            \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, " \
  "%82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, "   \
  "%100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, "   \
  "%115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

// One instruction. The operands after the sums are numbered from the count of the sums on: `add`
// is one of them, `rest` those that follow it.
#define STRATA_PRODUCT(type, size, registers, operands, add, rest, sums, ...)                     \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " add ", 0;\nwgmma.mma_async.sync.aligned." size \
               ".f32." type "." type " {" registers "}, " operands ", p, 1, 1, " rest ";\n}"      \
               : sums                                                                             \
               : __VA_ARGS__)
#define STRATA_LEFT_REGISTERS \
  "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(add)), "n"(int(kColumns))
#define STRATA_LEFT_SHARED "l"(a), "l"(b), "r"(int(add)), "n"(int(kColumnsA)), "n"(int(kColumnsB))

// d (64, 8 kTiles) += a (64, 16) b (16, 8 kTiles), or = where `add` is false, when wait_products
// says so. kColumns: b as panel_by_columns gives it, else as panel_by_rows.
template <class T, bool kColumns, int kTiles>
__device__ __forceinline__ void product(float (&d)[kTiles][4], const uint32_t (&a)[4], uint64_t b,
                                        bool add = true) {
  static_assert(is_half<T> && (kTiles == 8 || kTiles == 16));
  constexpr bool kBf16 = dtype_of<T>() == DType::bf16;
#define STRATA_PRODUCT_8(type)                                                               \
  STRATA_PRODUCT(type, "m64n64k16", STRATA_REGISTERS_32, "{%32, %33, %34, %35}, %36", "%37", \
                 "%38", STRATA_SUMS_8(d, 0), STRATA_LEFT_REGISTERS)
#define STRATA_PRODUCT_16(type)                                                               \
  STRATA_PRODUCT(type, "m64n128k16", STRATA_REGISTERS_64, "{%64, %65, %66, %67}, %68", "%69", \
                 "%70", STRATA_SUMS_16(d, 0), STRATA_LEFT_REGISTERS)
  if constexpr (kTiles == 8 && kBf16) STRATA_PRODUCT_8("bf16");
  if constexpr (kTiles == 8 && !kBf16) STRATA_PRODUCT_8("f16");
  if constexpr (kTiles == 16 && kBf16) STRATA_PRODUCT_16("bf16");
  if constexpr (kTiles == 16 && !kBf16) STRATA_PRODUCT_16("f16");
#undef STRATA_PRODUCT_8
#undef STRATA_PRODUCT_16
}
// The same with a in shared memory, kColumnsA as kColumnsB is for b; d may have room for more.
template <class T, bool kColumnsA, bool kColumnsB, int kTiles, int kRoom>
__device__ __forceinline__ void shared_product(float (&d)[kRoom][4], uint64_t a, uint64_t b,
                                               bool add = true) {
  static_assert(is_half<T> && kTiles <= kRoom && (kTiles == 8 || kTiles == 16 || kTiles == 32));
  constexpr bool kBf16 = dtype_of<T>() == DType::bf16;
#define STRATA_PRODUCT_8(type)                                                          \
  STRATA_PRODUCT(type, "m64n64k16", STRATA_REGISTERS_32, "%32, %33", "%34", "%35, %36", \
                 STRATA_SUMS_8(d, 0), STRATA_LEFT_SHARED)
#define STRATA_PRODUCT_16(type)                                                          \
  STRATA_PRODUCT(type, "m64n128k16", STRATA_REGISTERS_64, "%64, %65", "%66", "%67, %68", \
                 STRATA_SUMS_16(d, 0), STRATA_LEFT_SHARED)
#define STRATA_PRODUCT_32(type)                                                                \
  STRATA_PRODUCT(type, "m64n256k16", STRATA_REGISTERS_128, "%128, %129", "%130", "%131, %132", \
                 STRATA_SUMS_32(d, 0), STRATA_LEFT_SHARED)
  if constexpr (kTiles == 8 && kBf16) STRATA_PRODUCT_8("bf16");
  if constexpr (kTiles == 8 && !kBf16) STRATA_PRODUCT_8("f16");
  if constexpr (kTiles == 16 && kBf16) STRATA_PRODUCT_16("bf16");
  if constexpr (kTiles == 16 && !kBf16) STRATA_PRODUCT_16("f16");
  if constexpr (kTiles == 32 && kBf16) STRATA_PRODUCT_32("bf16");
  if constexpr (kTiles == 32 && !kBf16) STRATA_PRODUCT_32("f16");
#undef STRATA_PRODUCT_8
#undef STRATA_PRODUCT_16
#undef STRATA_PRODUCT_32
}
#undef STRATA_SUMS_1
#undef STRATA_SUMS_4
#undef STRATA_SUMS_8
#undef STRATA_SUMS_16
#undef STRATA_SUMS_32
#undef STRATA_REGISTERS_32
#undef STRATA_REGISTERS_64
#undef STRATA_REGISTERS_128
#undef STRATA_PRODUCT
#undef STRATA_LEFT_REGISTERS
#undef STRATA_LEFT_SHARED

// Sums (64, 8 kTiles) as the left operand of a next product.
template <class T, int kTiles>
__device__ __forceinline__ void narrow_tile(uint32_t (&a)[kTiles / 2][4],
                                            const float (&d)[kTiles][4]) {
#pragma unroll
  for (int k = 0; k < kTiles; k += 2) {
    a[k / 2][0] = pack2<T>(d[k][0], d[k][1]);
    a[k / 2][1] = pack2<T>(d[k][2], d[k][3]);
    a[k / 2][2] = pack2<T>(d[k + 1][0], d[k + 1][1]);
    a[k / 2][3] = pack2<T>(d[k + 1][2], d[k + 1][3]);
  }
}

// Transposes a 4 x 4 matrix of words over the four lanes that hold its columns.
__device__ __forceinline__ void transpose_quad(uint32_t (&p)[4]) {
  const int lane = threadIdx.x;
#pragma unroll
  for (int step = 1; step <= 2; step *= 2) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i & step) continue;
      uint32_t &low = p[i], &high = p[i | step];
      const uint32_t got = __shfl_xor_sync(kAllLanes, lane & step ? low : high, step);
      if (lane & step)
        low = got;
      else
        high = got;
    }
  }
}

#endif

}  // namespace strata
