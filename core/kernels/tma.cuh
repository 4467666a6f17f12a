// Copies of boxes of a tensor by Hopper's copy engine, between global and shared memory, for
// kernels on bf16 and f16. One thread asks for them; a barrier in shared memory tells when they are
// there. Boxes are panels as wgmma.cuh describes; what lies outside of the tensor reads as zero and
// is not written.
#pragma once

#include <cudaTypedefs.h>

#include "core/kernels/wgmma.cuh"

namespace strata {

inline PFN_cuTensorMapEncodeTiled_v12000 tensor_map_encoder(const char* op) {
  static const auto encoder = [op] {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    check_cuda(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000,
                                                cudaEnableDefault, &found),
               op);
    if (found != cudaDriverEntryPointSuccess)
      kernel_error("%s: the driver has no cuTensorMapEncodeTiled; it is older than CUDA 12", op);
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(entry);
  }();
  return encoder;
}

// What the copy engine needs to know of x, two-byte numbers of `type` on 16 bytes: its sizes and
// those of a box, columns first, and for every further dimension the bytes from one index to the
// next, multiples of 16. A box has kPanelColumns columns. `promotion`: how much the L2 cache reads
// at once. Throws what the driver says, in the name of `op`.
template <int kRank>
CUtensorMap tensor_map(const char* op, DType type, const void* x, const int64_t (&sizes)[kRank],
                       const int64_t (&pitches)[kRank - 1], const int (&box)[kRank],
                       CUtensorMapL2promotion promotion = CU_TENSOR_MAP_L2_PROMOTION_L2_256B) {
  cuuint64_t size[kRank], pitch[kRank - 1];
  cuuint32_t box_size[kRank], step[kRank];
  for (int i = 0; i < kRank; ++i) {
    size[i] = cuuint64_t(sizes[i]);
    box_size[i] = cuuint32_t(box[i]);
    step[i] = 1;
  }
  for (int i = 0; i + 1 < kRank; ++i) pitch[i] = cuuint64_t(pitches[i]);
  CUtensorMap map;
  const CUresult status = tensor_map_encoder(op)(
      &map,
      type == DType::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
      kRank, const_cast<void*>(x), size, pitch, box_size, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
      CU_TENSOR_MAP_SWIZZLE_128B, promotion, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS)
    kernel_error("%s: the driver refused a tensor map, error %d: %d dimensions, %lld columns", op,
                 int(status), kRank, static_cast<long long>(sizes[0]));
  return map;
}

#ifdef STRATA_WARPGROUP_MMA

// A barrier in shared memory. A phase ends when `arrivals` have come and with them all bytes that
// they announced; the next begins at once. One thread makes barriers, publishes them, and a barrier
// of the block follows.
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
__device__ __forceinline__ void expect_bytes(Barrier& b, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&b)),
               "r"(bytes)
               : "memory");
}
// Until the phase of this parity has ended: 0 the first, then 1, 0, ... kTogether: the compiler may
// rely on it that those threads of a warp that wait go on together.
template <bool kTogether = true>
__device__ __forceinline__ void wait_phase(Barrier& b, int parity) {
#define STRATA_WAIT_PHASE(branch)                                  \
  asm volatile(                                                    \
      "{\n.reg .pred done;\nagain:\n"                              \
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n" \
      "@!done " branch " again;\n}" ::"r"(shared_address(&b)),     \
      "r"(parity)                                                  \
      : "memory")
  if constexpr (kTogether)
    STRATA_WAIT_PHASE("bra.uni");
  else
    STRATA_WAIT_PHASE("bra");
#undef STRATA_WAIT_PHASE
}

// Where a thread is in a ring of kStages buffers that are filled and emptied in turn, and the
// parity of the phase.
template <int kStages>
struct Ring {
  int stage = 0, parity = 0;
  __device__ __forceinline__ void next() {
    if (++stage == kStages) stage = 0, parity ^= 1;
  }
};

// One box, from these indices of the map's dimensions; the shared address is a multiple of 1024
// bytes.
__device__ __forceinline__ void copy_box(void* to, const CUtensorMap& map, Barrier& b, int i0,
                                         int i1, int i2) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(shared_address(to)),
      "l"(&map), "r"(shared_address(&b)), "r"(i0), "r"(i1), "r"(i2)
      : "memory");
}
__device__ __forceinline__ void copy_box(void* to, const CUtensorMap& map, Barrier& b, int i0,
                                         int i1, int i2, int i3) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(shared_address(to)),
      "l"(&map), "r"(shared_address(&b)), "r"(i0), "r"(i1), "r"(i2), "r"(i3)
      : "memory");
}
// `bytes` contiguous ones; both addresses and the count are multiples of 16.
__device__ __forceinline__ void copy_bulk(void* to, const void* from, int bytes, Barrier& b) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(&b))
      : "memory");
}

// The other way. What other threads wrote to the box must have been published (wgmma.cuh) and
// passed a barrier. The thread that asked calls commit_boxes, and wait_boxes before the box is used
// again.
__device__ __forceinline__ void store_box(const CUtensorMap& map, const void* from, int i0, int i1,
                                          int i2) {
  asm volatile(
      "cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(
          &map),
      "r"(shared_address(from)), "r"(i0), "r"(i1), "r"(i2)
      : "memory");
}
__device__ __forceinline__ void commit_boxes() {
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
__device__ __forceinline__ void wait_boxes() {
  asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

#endif

}  // namespace strata
