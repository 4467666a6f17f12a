// The chunked scan, backward, on bf16 activations: sums, states between chunks' gradients and the
// gradients of A_log, D, dt_bias and the initial state in float32. After the walks over the states
// all chunks are independent.
#include "layers/mamba2/ssd_backward_chunk_cuda.cuh"
#include "layers/mamba2/ssd_backward_states_cuda.cuh"
#include "layers/mamba2/ssd_backward_steps_cuda.cuh"

namespace strata::mamba2 {
namespace {

constexpr const char* kOp = "ssd_scan_backward";

// Lets a block of `kernel` have `bytes` of shared memory, at most 116 KB (135 KB for 128 x 128): a
// device with less cannot run it.
template <class Kernel>
void allow_shared(Kernel* kernel, size_t bytes) {
  const int most = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, kOp);
  if (bytes > size_t(most))
    device_error(ErrorKind::device,
                 "%s: bf16 needs %zu bytes of shared memory a block for this head_dim and d_state, "
                 "this device has %d; train with model.dtype = \"f32\"",
                 kOp, bytes, most);
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)),
             kOp);
}

template <int P, int N>
void run_tiles(const Back& k, cudaStream_t stream) {
  const SsdBackwardSizes& s = k.s;
  constexpr size_t kStates = sizeof(StatesShared<P, N>), kChunks = sizeof(ChunkShared<P, N>);
  allow_shared(states_kernel<P, N>, kStates);
  allow_shared(chunk_kernel<P, N>, kChunks);
  states_kernel<P, N><<<dim3(unsigned(s.heads), unsigned(s.batch), 2), 2 * N, kStates, stream>>>(k);
  chunk_kernel<P, N>
      <<<unsigned(s.batch * s.chunks * s.groups * s.slices), kChunkThreads, kChunks, stream>>>(k);
}

template <int N>
void run_dims(const Back& k, cudaStream_t stream) {
  if (k.s.tile_dim == 64) return run_tiles<64, N>(k, stream);
  if (k.s.tile_dim == 80) return run_tiles<80, N>(k, stream);
  run_tiles<128, N>(k, stream);
}

__global__ void __launch_bounds__(kThreads) widen_kernel(Tensor from, float* to) {
  const int64_t columns = from.cols();
  STRATA_GRID_LOOP(i, from.numel()) to[i] = wide(from.row<bf16>(i / columns)[i % columns]);
}

__global__ void __launch_bounds__(kThreads) deliver_kernel(GradTarget to, const float* from) {
  const int64_t columns = to.grad.cols();
  STRATA_GRID_LOOP(i, to.grad.numel()) {
    bf16* const at = to.grad.row<bf16>(i / columns) + i % columns;
    *at = __float2bfloat16_rn(to.accumulate ? from[i] + wide(*at) : from[i]);
  }
}

// The float32 scan on copies, for what run_tiles does not take.
void run_converted(const SsdScanBackwardArgs& args, const SsdBackwardWorkspace& w,
                   cudaStream_t stream, Stream on) {
  SsdScanBackwardArgs wide = args;
  const auto widen = [&](Tensor& x, float* to) {
    widen_kernel<<<blocks_for(x.numel()), kThreads, 0, stream>>>(x, to);
    x.data = to, x.pitch = x.cols(), x.dtype = DType::f32;
  };
  widen(wide.forward.x, w.x32);
  widen(wide.forward.dt, w.dt32);
  widen(wide.forward.b, w.b32);
  widen(wide.forward.c, w.c32);
  widen(wide.dy, w.dy32);
  wide.forward.workspace.data = w.scan32;
  wide.forward.workspace.shape = {w.scan32_bytes};
  const auto redirect = [](GradTarget& to, float* copy) {
    to.grad.data = copy, to.grad.pitch = to.grad.cols(), to.grad.dtype = DType::f32;
    to.accumulate = false;
  };
  redirect(wide.dx, w.dx32);
  redirect(wide.ddt, w.ddt32);
  redirect(wide.db, w.db32);
  redirect(wide.dc, w.dc32);
  find_kernel(kOp, DeviceKind::cuda, DType::f32, typeid(SsdScanBackwardArgs).name(),
              sizeof(SsdScanBackwardArgs))(&wide, on);
  const auto deliver = [&](const GradTarget& to, const float* from) {
    if (to.wanted) deliver_kernel<<<blocks_for(to.grad.numel()), kThreads, 0, stream>>>(to, from);
  };
  deliver(args.dx, w.dx32);
  deliver(args.ddt, w.ddt32);
  deliver(args.db, w.db32);
  deliver(args.dc, w.dc32);
  check_launch(kOp);
}

template <class T>
void ssd_scan_backward_half(const SsdScanBackwardArgs& args, Stream on) {
  static_assert(dtype_of<T>() == DType::bf16);
  const cudaStream_t stream = stream_of(on);
  const Back k(args);
  const SsdBackwardSizes& s = k.s;
  if (s.tile_dim == 0) return run_converted(args, k.w, stream, on);
  const dim3 steps(unsigned(s.batch * s.chunks), unsigned((s.heads + kStepHeads - 1) / kStepHeads));
  steps_kernel<<<steps, kThreads, 0, stream>>>(k);
  if (s.tile_states == 64)
    run_dims<64>(k, stream);
  else
    run_dims<128>(k, stream);
  step_gradients_kernel<<<steps, kThreads, 0, stream>>>(k);
  sum_chunks_kernel<<<dim3(unsigned(s.heads), 3), kThreads, 0, stream>>>(k);
  if (s.slices > 1)
    sum_slices_kernel<<<dim3(blocks_for(s.batch * s.seq_len * s.groups * s.states), 2), kThreads, 0,
                        stream>>>(k);
  check_launch(kOp);
}

STRATA_CUDA_BF16_KERNEL("ssd_scan_backward", SsdScanBackwardArgs, ssd_scan_backward_half)

}  // namespace
}  // namespace strata::mamba2
