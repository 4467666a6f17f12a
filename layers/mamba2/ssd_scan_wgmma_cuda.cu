// Launches of the scan for bf16 and f16 on warpgroups.
#include "layers/mamba2/ssd_scan_wgmma_cuda.cuh"

namespace strata::mamba2 {
namespace {

template <class T, int kN>
void launch_scan(const GroupScan& group, cudaStream_t stream) {
  const MmaScan& k = group.scan;
  const int threads = int(k.plan.warps) * kWarp, shared = int(k.plan.shared_bytes());
  const auto launch = [&](void (*kernel)(GroupScan), int64_t segments) {
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared),
               "ssd_scan");
    kernel<<<unsigned(k.plan.blocks() * segments), threads, shared, stream>>>(group);
  };
  if (k.plan.segments > 1) launch(scan_wgmma_kernel<T, kN, true>, k.plan.segments - 1);
  launch(scan_wgmma_kernel<T, kN, false>, k.plan.segments);
  check_launch("ssd_scan");
}

template <class T>
void launch_states(const GroupScan& k, cudaStream_t stream) {
  if (k.scan.plan.padded_states == 64)
    launch_scan<T, 64>(k, stream);
  else
    launch_scan<T, 128>(k, stream);
}

}  // namespace

void ssd_scan_warpgroups(const SsdScanArgs& args, Stream stream) {
  const GroupScan k(args);
  if (args.x.dtype == DType::bf16)
    launch_states<bf16>(k, stream_of(stream));
  else
    launch_states<f16>(k, stream_of(stream));
}

}  // namespace strata::mamba2
