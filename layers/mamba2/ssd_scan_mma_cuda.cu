// Launches of the scan for bf16 and f16.
#include "core/kernels/wgmma.cuh"
#include "layers/mamba2/ssd_scan_mma_cuda.cuh"

namespace strata::mamba2 {
namespace {

template <class T, int kN, int kTiles>
void launch_scan(const MmaScan& k, cudaStream_t stream) {
  const int threads = int(k.plan.warps) * kWarp, shared = int(k.plan.shared_bytes());
  const auto launch = [&](void (*kernel)(MmaScan), int64_t segments) {
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    int(SsdMmaPlan::kMaxShared)),
               "ssd_scan");
    kernel<<<unsigned(k.plan.blocks() * segments), threads, shared, stream>>>(k);
  };
  if (k.plan.segments > 1) launch(scan_mma_kernel<T, kN, kTiles, true>, k.plan.segments - 1);
  launch(scan_mma_kernel<T, kN, kTiles, false>, k.plan.segments);
  check_launch("ssd_scan");
}

template <class T>
void ssd_scan_mma(const SsdScanArgs& args, Stream on) {
  if (SsdMmaPlan::fits_warpgroups(args) && packable(args.x) && packable(args.b) &&
      packable(args.c) && packable(args.y) && has_warpgroup_mma())
    return ssd_scan_warpgroups(args, on);
  const MmaScan k(args, false);
  if (k.plan.states > SsdMmaPlan::kMaxStates)
    kernel_error("ssd_scan: d_state %lld is above %lld, the most of %s on CUDA",
                 static_cast<long long>(k.plan.states),
                 static_cast<long long>(SsdMmaPlan::kMaxStates), name_of(args.x.dtype));
  const cudaStream_t stream = stream_of(on);
  switch (k.plan.padded_states) {
    case 16:
      return launch_scan<T, 16, 2>(k, stream);
    case 64:
      return launch_scan<T, 64, 2>(k, stream);
    case 128:
      return launch_scan<T, 128, 2>(k, stream);
    default:
      return launch_scan<T, 256, 1>(k, stream);
  }
}

STRATA_CUDA_HALF_KERNEL("ssd_scan", SsdScanArgs, ssd_scan_mma)

}  // namespace
}  // namespace strata::mamba2
