// The warp's matrix unit and asynchronous copies, for kernels on bf16 and f16: what sm_80 and every
// later device has.
//
// A warp multiplies d (16, 8) += a (16, 16) b (16, 8). With lane = 4 g + t, one lane holds
//   d[0..3]: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)
//   a[0..3]: two numbers each, of rows g, g + 8, g, g + 8 and columns 2t, 2t, 2t + 8, 2t + 8
//   b[0..1]: two numbers each, of rows 2t, 2t + 8 and column g
// so that two neighbouring tiles d, narrowed, are one tile a of a next product.
#pragma once

#include "core/kernels/device.cuh"
#include "core/kernels/half.cuh"

namespace strata {

// Elements from row to row of a shared tile of two-byte numbers: an odd multiple of 16 bytes, so
// that the eight rows that ldmatrix reads at once lie in different banks.
constexpr int padded_row(int cols) { return (cols + 15) / 16 * 16 + 8; }

#ifdef __CUDACC__

// Two numbers as T in one register, the first in the low half.
template <class T>
__device__ __forceinline__ uint32_t pack2(float low, float high) {
  static_assert(is_half<T>);
  uint32_t out;
  if constexpr (dtype_of<T>() == DType::bf16)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  return out;
}

template <class T>
__device__ __forceinline__ float2 unpack2(uint32_t pair) {
  static_assert(is_half<T>);
  if constexpr (dtype_of<T>() == DType::bf16)
    return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
  else
    return __half22float2(*reinterpret_cast<const __half2*>(&pair));
}

// d += a b
template <class T>
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                    uint32_t b1) {
  static_assert(is_half<T>);
  if constexpr (dtype_of<T>() == DType::bf16)
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ uint32_t shared_address(const void* at) {
  return uint32_t(__cvta_generic_to_shared(at));
}

// Four 8 x 8 tiles of two-byte numbers: lane 8 i + r gives the address of row r (16 aligned bytes)
// of tile i, and r[i] gets, of that tile, row lane / 4 and columns 2 (lane % 4) + {0, 1}.
// With lane_row = lane % 16 and lane_column = lane / 16 * 8, the address of (lane_row, lane_column)
// of a stored (16, 16) block makes r the tile a, if rows of the block are rows of a.
__device__ __forceinline__ void load_matrix(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
// The same with every 8 x 8 tile transposed. From the address of (lane % 16, lane / 16 * 8) of a
// stored (k = 16, n = 16) block, r[0], r[1] are the tile b of its first eight columns and r[2],
// r[3] that of the others.
__device__ __forceinline__ void load_matrix_transposed(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

// Element offset of what this lane passes to load_matrix for a (16, 16) block with `pitch` elements
// from row to row. (n, k) blocks as the tiles b of n < 8 and n >= 8 take lane_offset_b: r[0], r[1]
// and r[2], r[3].
__device__ __forceinline__ int lane_offset(int pitch) {
  const int lane = threadIdx.x % kWarp;
  return lane % 16 * pitch + lane / 16 * 8;
}
__device__ __forceinline__ int lane_offset_b(int pitch) {
  const int lane = threadIdx.x % kWarp;
  return (lane / 16 * 8 + lane % 8) * pitch + lane / 8 % 2 * 8;
}

// Copies 16 bytes to shared memory, of which the first `bytes` (0 to 16) come from global memory
// and the rest are zero. Both addresses are multiples of 16 bytes.
__device__ __forceinline__ void copy_async(void* shared, const void* global, int bytes = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(global), "r"(bytes)
               : "memory");
}
// The copies that this thread has begun become a group; wait until at most `kPending` groups of
// this thread are under way. Other threads' copies are seen after a barrier.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;"); }
template <int kPending>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

#endif

}  // namespace strata
