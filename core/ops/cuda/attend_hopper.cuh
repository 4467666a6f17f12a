// What attention uses of compute capability 9.0 (Hopper): tiles that the tensor memory accelerator
// copies, barriers that count its bytes, and products of a warpgroup (wgmma) with accumulators in
// registers. In shared memory a tile of (rows, D) two-byte numbers is D / 64 panels of (rows, 64)
// with the 128-byte swizzle, on 1024 bytes.
#pragma once

#include <cuda.h>

#include "core/kernels/cuda_path.h"
#include "core/ops/cuda/attend_mma.cuh"

namespace strata {
namespace {

constexpr int kPanel = 64;                  // columns of a panel
constexpr int kBoxRows = int(kPageTokens);  // rows of a copy
constexpr int kGroupThreads = 128;          // of a warpgroup

// Whether the current device can run kernels for compute capability 9.0, and may.
inline bool device_is_hopper() {
  int device = 0, major = 0, minor = 0;
  return cuda_path() == CudaPath::best && cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess &&
         major == 9 && minor == 0;
}
// Of the current device.
inline int multiprocessors() {
  int device = 0, count = 0;
  check_cuda(cudaGetDevice(&device), "attend");
  check_cuda(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "attend");
  return count;
}
// Whether this build has `kernel` for sm_90a: elsewhere its body, and so its barriers in shared
// memory, are left out.
template <class... Args>
bool has_body(void (*kernel)(Args...)) {
  cudaFuncAttributes attributes{};
  check_cuda(cudaFuncGetAttributes(&attributes, kernel), "attend");
  return attributes.sharedSizeBytes > 0;
}

// x as (outer, rows, heads, dim) with `pitch` bytes from row to row, read in boxes of 64 rows of a
// panel of one head; outside it reads zero.
template <class T>
CUtensorMap tile_map(const void* x, int64_t outer, int64_t outer_pitch, int64_t rows, int64_t pitch,
                     int64_t heads, int64_t dim) {
  using Encode = decltype(&cuTensorMapEncodeTiled);
  static const Encode encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    check_cuda(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                                cudaEnableDefault, &found),
               "attend");
    if (found != cudaDriverEntryPointSuccess)
      kernel_error("attend: the driver has no cuTensorMapEncodeTiled; it is older than CUDA 12");
    return reinterpret_cast<Encode>(function);
  }();
  CUtensorMap map;
  const cuuint64_t sizes[4] = {cuuint64_t(dim), cuuint64_t(heads), cuuint64_t(rows),
                               cuuint64_t(outer)};
  const cuuint64_t pitches[3] = {cuuint64_t(dim * 2), cuuint64_t(pitch), cuuint64_t(outer_pitch)};
  const cuuint32_t box[4] = {kPanel, 1, kBoxRows, 1}, steps[4] = {1, 1, 1, 1};
  const auto type = dtype_of<T>() == DType::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                                 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
  if (encode(&map, type, 4, const_cast<void*>(x), sizes, pitches, box, steps,
             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) != CUDA_SUCCESS)
    kernel_error("attend: the driver refused a tensor map of %d x %d", int(rows), int(dim));
  return map;
}
// Of a (batch, rows, heads * dim) tensor and of pages.
template <class T>
CUtensorMap tile_map(const Tensor& x, int64_t heads) {
  const int64_t pitch = x.pitch * int64_t(sizeof(T));
  return tile_map<T>(x.data, x.shape[0], pitch * x.shape[1], x.shape[1], pitch, heads,
                     x.cols() / heads);
}
template <class T>
CUtensorMap tile_map(const PagesRef& x, int64_t heads, int64_t dim) {
  const int64_t any = int64_t{1} << 31;  // pages: the table names only those that exist
  return tile_map<T>(x.base, any, x.page_bytes, kPageTokens, x.token_bytes, heads, dim);
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

using Barrier = uint64_t;

__device__ __forceinline__ void init_barrier(Barrier& b, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&b)), "r"(arrivals)
               : "memory");
}
__device__ __forceinline__ void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void arrive(Barrier& b) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&b)) : "memory");
}
// Arrives, and lets the phase wait for `bytes` more to be copied.
__device__ __forceinline__ void expect(Barrier& b, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&b)),
               "r"(bytes)
               : "memory");
}
// Until the phase of this parity has ended.
__device__ __forceinline__ void wait(Barrier& b, int parity) {
  asm volatile(
      "{\n.reg .pred done;\nagain:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra.uni over;\nbra.uni again;\nover:\n}" ::"r"(shared_address(&b)),
      "r"(parity)
      : "memory");
}

// Stage and parity of the n-th use of a ring of kStages buffers.
template <int kStages>
struct Ring {
  int stage = 0, parity = 0;
  __device__ __forceinline__ void next() {
    if (++stage == kStages) stage = 0, parity ^= 1;
  }
};

__device__ __forceinline__ void copy_box(void* to, const CUtensorMap& map, Barrier& b, int column,
                                         int head, int row, int outer) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(shared_address(to)),
      "l"(&map), "r"(shared_address(&b)), "r"(column), "r"(head), "r"(row), "r"(outer)
      : "memory");
}
// 64 rows from `row` on into rows [at, at + 64) of a tile of (kRows, D).
template <int kRows, int D, class T>
__device__ __forceinline__ void copy_box_rows(T* tile, int at, const CUtensorMap& map, Barrier& b,
                                              int head, int row, int outer) {
#pragma unroll
  for (int panel = 0; panel < D / kPanel; ++panel)
    copy_box(tile + panel * kRows * kPanel + at * kPanel, map, b, panel * kPanel, head, row, outer);
}
// `bytes` contiguous ones; both addresses and the count are multiples of 16.
__device__ __forceinline__ void copy_bulk(void* to, const void* from, int bytes, Barrier& b) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(&b))
      : "memory");
}

// Barrier `id` among `threads` threads; the second form does not wait.
__device__ __forceinline__ void sync_some(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void arrive_some(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
// What this thread wrote to shared memory is seen by copies and products after the next barrier.
__device__ __forceinline__ void publish_shared() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
template <int kRegisters>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// Descriptor of rows of a panel whose sum runs along the columns: add 2 to move on by 16 columns.
__device__ __forceinline__ uint64_t rows_descriptor(const void* at) {
  return uint64_t(shared_address(at) >> 4) | uint64_t{1} << 16 | uint64_t{1024 >> 4} << 32 |
         uint64_t{1} << 62;
}
// Descriptor of a tile whose sum runs along the rows, its panels kRows * 128 bytes apart: add 128
// to move on by 16 rows.
template <int kRows>
__device__ __forceinline__ uint64_t columns_descriptor(const void* at) {
  return uint64_t(shared_address(at) >> 4) | uint64_t{kRows * 128 >> 4} << 16 |
         uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62;
}

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
template <int N>
__device__ __forceinline__ void pin(float (&d)[N][4]) {
#pragma unroll
  for (int i = 0; i < N; ++i)
#pragma unroll
    for (int e = 0; e < 4; ++e) asm volatile("" : "+f"(d[i][e])::"memory");
}

#define STRATA_D4(i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define STRATA_D32                                                                    \
  STRATA_D4(0), STRATA_D4(1), STRATA_D4(2), STRATA_D4(3), STRATA_D4(4), STRATA_D4(5), \
      STRATA_D4(6), STRATA_D4(7)
#define STRATA_D64                                                                     \
  STRATA_D32, STRATA_D4(8), STRATA_D4(9), STRATA_D4(10), STRATA_D4(11), STRATA_D4(12), \
      STRATA_D4(13), STRATA_D4(14), STRATA_D4(15)
#define STRATA_R32                                                                         \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23," \
  "%24,%25,%26,%27,%28,%29,%30,%31"
#define STRATA_R64                                                                        \
  STRATA_R32                                                                              \
  ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52," \
  "%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define STRATA_SHARED(shape, type, list, a, b, add, outputs)                                       \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " add ", 0;\nwgmma.mma_async.sync.aligned." shape \
               ".f32." type "." type " {" list "}, " a ", " b ", p, 1, 1, 0, 0;\n}"                \
               : outputs                                                                           \
               : "l"(x), "l"(z), "r"(int(more)))
#define STRATA_REGISTERS(shape, type, list, a, b, add, outputs)                                    \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " add ", 0;\nwgmma.mma_async.sync.aligned." shape \
               ".f32." type "." type " {" list "}, {" a "}, " b ", p, 1, 1, 1;\n}"                 \
               : outputs                                                                           \
               : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "l"(z), "r"(int(more)))

// d (64, 8 N) = (more: +=) x z^T, 16 columns of x and z, both given by rows_descriptor.
template <class T, int N>
__device__ __forceinline__ void multiply(float (&d)[N][4], uint64_t x, uint64_t z, bool more) {
  static_assert(N == 8 || N == 16);
  if constexpr (dtype_of<T>() == DType::bf16) {
    if constexpr (N == 8)
      STRATA_SHARED("m64n64k16", "bf16", STRATA_R32, "%32", "%33", "%34", STRATA_D32);
    else
      STRATA_SHARED("m64n128k16", "bf16", STRATA_R64, "%64", "%65", "%66", STRATA_D64);
  } else {
    if constexpr (N == 8)
      STRATA_SHARED("m64n64k16", "f16", STRATA_R32, "%32", "%33", "%34", STRATA_D32);
    else
      STRATA_SHARED("m64n128k16", "f16", STRATA_R64, "%64", "%65", "%66", STRATA_D64);
  }
}
// d (64, 8 N) = (more: +=) x z with x (64, 16) in registers, z (16, 8 N) by columns_descriptor.
template <class T, int N>
__device__ __forceinline__ void multiply(float (&d)[N][4], const uint32_t (&x)[4], uint64_t z,
                                         bool more) {
  static_assert(N == 8 || N == 16);
  if constexpr (dtype_of<T>() == DType::bf16) {
    if constexpr (N == 8)
      STRATA_REGISTERS("m64n64k16", "bf16", STRATA_R32, "%32,%33,%34,%35", "%36", "%37",
                       STRATA_D32);
    else
      STRATA_REGISTERS("m64n128k16", "bf16", STRATA_R64, "%64,%65,%66,%67", "%68", "%69",
                       STRATA_D64);
  } else {
    if constexpr (N == 8)
      STRATA_REGISTERS("m64n64k16", "f16", STRATA_R32, "%32,%33,%34,%35", "%36", "%37", STRATA_D32);
    else
      STRATA_REGISTERS("m64n128k16", "f16", STRATA_R64, "%64,%65,%66,%67", "%68", "%69",
                       STRATA_D64);
  }
}
#undef STRATA_D4
#undef STRATA_D32
#undef STRATA_D64
#undef STRATA_R32
#undef STRATA_R64
#undef STRATA_SHARED
#undef STRATA_REGISTERS

// s = x z^T for 64 rows of a tile x (kRows, D), from its row 0 at `x`, and all rows of z (8 N, D).
template <class T, int D, int kRows, int N>
__device__ __forceinline__ void multiply_tiles(float (&s)[N][4], const T* x, const T* z) {
  const uint64_t xs = rows_descriptor(x), zs = rows_descriptor(z);
#pragma unroll
  for (int k = 0; k < D / 16; ++k) {
    constexpr int kSteps = kPanel / 16;
    const int xk = k / kSteps * (kRows * 128 >> 4) + k % kSteps * 2;
    const int zk = k / kSteps * (N * 8 * 128 >> 4) + k % kSteps * 2;
    multiply<T>(s, xs + xk, zs + zk, k > 0);
  }
}
// o = (more: +=) w z for weights w (64, kRows) in registers and a tile z (kRows, D).
template <class T, int kRows, int C>
__device__ __forceinline__ void add_tile(float (&o)[C][4], const uint32_t (&w)[kRows / 16][4],
                                         const T* z, bool more) {
  const uint64_t zs = columns_descriptor<kRows>(z);
#pragma unroll
  for (int k = 0; k < kRows / 16; ++k) multiply<T>(o, w[k], zs + k * 128, more || k > 0);
}
// Accumulators (64, 8 N) as the operand of a next product.
template <class T, int N>
__device__ __forceinline__ void narrow_tile(uint32_t (&w)[N / 2][4], const float (&s)[N][4]) {
#pragma unroll
  for (int k = 0; k < N; k += 2) {
    w[k / 2][0] = pack2<T>(s[k][0], s[k][1]);
    w[k / 2][1] = pack2<T>(s[k][2], s[k][3]);
    w[k / 2][2] = pack2<T>(s[k + 1][0], s[k + 1][1]);
    w[k / 2][3] = pack2<T>(s[k + 1][2], s[k + 1][3]);
  }
}

#endif

}  // namespace
}  // namespace strata
