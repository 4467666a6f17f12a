// The scan, forward, in float32 and float64: chunks of 64 tokens as matrix products. See
// ssd_chunk_cpu.h for the algebra.
#include "layers/mamba2/ssd_chunk_cuda.cuh"

namespace strata::mamba2 {
namespace {

// y of one chunk of one head, 64 columns: p o (C S^T) + ((C B^T) o M) x + D x.
template <class T>
__global__ void __launch_bounds__(kTileThreads) output_kernel(Scan<T> k) {
  extern __shared__ __align__(16) char shared[];
  T* room = reinterpret_cast<T*>(shared);
  T *w = room + kTileRoom, *a = w + kQ * kQ, *dt = a + kQ;  // (Q, Q), (Q), (Q)
  const Place at(k, blockIdx.x, k.s.heads);
  const int dim = int(k.s.dim), n = int(k.s.states), p0 = int(blockIdx.y) * kTile;
  const int64_t group = at.inner / k.s.heads_per_group;
  const int64_t x_pitch = k.args.x.pitch, c_pitch = k.args.c.pitch;
  const T* x = k.args.x.template row<T>(at.row0) + at.inner * dim + p0;
  const T* c = k.args.c.template row<T>(at.row0) + group * n;
  const T* g = k.w.g + (at.index / k.s.heads * k.s.groups + group) * kQ * kQ;
  if (threadIdx.x < kQ) {
    a[threadIdx.x] = k.w.a[at.index * kQ + threadIdx.x];
    dt[threadIdx.x] = k.w.dt[at.index * kQ + threadIdx.x];
  }
  __syncthreads();
  decay_columns(a, dt,
                [&](int i, int j, T m) { w[i * kQ + j] = i < j ? T(0) : g[i * kQ + j] * m; });
  T acc[4][4] = {};
  if (at.chunk > 0 || k.has_start()) {
    const T* state = k.w.states + at.index * dim * n + int64_t(p0) * n;
    tile_product<true, true>(
        acc, n, [&](int i, int s) { return i < at.tokens ? c[i * c_pitch + s] : T(0); },
        [&](int s, int p) { return p0 + p < dim ? state[p * n + s] : T(0); }, room);
    const T* decay = k.w.decay + at.index * kQ;
    each_of_tile(acc, [&](int i, int, T& value) { value *= decay[i]; });
  }
  __syncthreads();
  tile_product<true, false>(
      acc, at.tokens, [&](int i, int j) { return w[i * kQ + j]; },
      [&](int j, int p) { return p0 + p < dim ? x[j * x_pitch + p] : T(0); }, room);
  const T skip = k.args.d ? k.args.d.template ptr<T>()[at.inner] : T(0);
  each_of_tile(acc, [&](int i, int p, T value) {
    if (i < at.tokens && p0 + p < dim)
      k.args.y.template row<T>(at.row0 + i)[at.inner * dim + p0 + p] =
          value + skip * x[i * x_pitch + p];
  });
}

template <class T>
void ssd_scan_cuda(const SsdScanArgs& args, Stream on) {
  const cudaStream_t stream = stream_of(on);
  Scan<T> k(args, false);
  constexpr int kShared = int(sizeof(T)) * (kTileRoom + kQ * kQ + 2 * kQ);
  check_cuda(
      cudaFuncSetAttribute(output_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared),
      "ssd_scan");
  for (; k.first < k.s.chunks; k.first += k.s.segment) {
    k.count = k.s.chunks - k.first < k.s.segment ? k.s.chunks - k.first : k.s.segment;
    chunk_states(k, stream);
    const dim3 grid(unsigned(k.s.batch * k.count * k.s.heads),
                    unsigned((k.s.dim + kTile - 1) / kTile));
    output_kernel<T><<<grid, kTileThreads, kShared, stream>>>(k);
  }
  check_launch("ssd_scan");
}

STRATA_CUDA_KERNEL("ssd_scan", SsdScanArgs, ssd_scan_cuda)

}  // namespace
}  // namespace strata::mamba2
