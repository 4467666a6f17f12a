// Copies of boxes of a tensor by Hopper's copy engine, between global and shared memory, for
// kernels on bf16 and f16. One thread asks for them; an arrival barrier in shared memory tells when
// they are there. Boxes are panels as wgmma.cuh describes; what lies outside of the tensor reads as
// zero and is not written.
#pragma once

#include <cudaTypedefs.h>

#include "core/kernels/wgmma.cuh"

namespace strata {

// x: (batch, rows, columns), rows `pitch` elements apart; boxes of box_rows by 64 columns.
inline CUtensorMap tensor_map(const Tensor& x, int box_rows) {
  static const PFN_cuTensorMapEncodeTiled_v12000 encode = [] {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult found{};
    check_cuda(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000,
                                                cudaEnableDefault, &found),
               "cuTensorMapEncodeTiled");
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(entry);
  }();
  CUtensorMap map;
  const cuuint64_t size[3] = {cuuint64_t(x.shape[2]), cuuint64_t(x.shape[1]),
                              cuuint64_t(x.shape[0])};
  const cuuint64_t stride[2] = {cuuint64_t(x.pitch) * 2,
                                cuuint64_t(x.pitch) * cuuint64_t(x.shape[1]) * 2};
  const cuuint32_t box[3] = {kPanelColumns, cuuint32_t(box_rows), 1}, step[3] = {1, 1, 1};
  const CUresult status =
      encode ? encode(&map,
                      x.dtype == DType::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                             : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
                      3, x.data, size, stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
                      CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE)
             : CUDA_ERROR_NOT_FOUND;
  if (status != CUDA_SUCCESS)
    kernel_error("a tensor map of %lld x %lld x %lld: CUDA says: error %d",
                 static_cast<long long>(x.shape[0]), static_cast<long long>(x.shape[1]),
                 static_cast<long long>(x.shape[2]), int(status));
  return map;
}

#ifdef STRATA_WARPGROUP_MMA

// A barrier that one arrival and the bytes it announced complete, again and again.
__device__ __forceinline__ void open_arrivals(uint64_t* barrier) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(barrier)) : "memory");
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void announce_bytes(uint64_t* barrier, int bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
}
// Waits for the phase of this parity: 0 the first time, then 1, 0, ...
__device__ __forceinline__ void wait_arrivals(uint64_t* barrier, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}
// One box, from (batch, row, column); the shared address is a multiple of 1024 bytes.
__device__ __forceinline__ void copy_box(void* to, const CUtensorMap& map, int column, int row,
                                         int batch, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], "
      "[%1, {%3, %4, %5}], [%2];" ::"r"(shared_address(to)),
      "l"(&map), "r"(shared_address(barrier)), "r"(column), "r"(row), "r"(batch)
      : "memory");
}

// The other way. What other threads wrote to the box must have been published (wgmma.cuh) and
// passed a barrier. The thread that asked calls commit_boxes, and wait_boxes before the box is used
// again.
__device__ __forceinline__ void store_box(const CUtensorMap& map, const void* from, int column,
                                          int row, int batch) {
  asm volatile(
      "cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(
          &map),
      "r"(shared_address(from)), "r"(column), "r"(row), "r"(batch)
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
