// y = x W^T for a few rows of x. A block takes an equal share of the rows of W, cut into parts; kw
// warps take every kw-th step of 32 columns of one part and add their sums in order. W is loaded
// straight into the fragments of m16n8k16 products, with x as the 16 rows and W as the 8 columns:
// the order in which k is summed is free, so that thread t of a row holds the columns 8t..8t+7 of a
// step, the first four for one product and the others for the next, for x and W alike. Several
// steps are in flight at any time.
#include "core/kernels/skinny_cuda.h"

#include "core/kernels/skinny_mma.cuh"

namespace strata {
namespace {

// How a product is spread: warps of a block, blocks of a multiprocessor, rows of x in eights, rows
// of W a warp takes in eights, and steps in flight.
template <int kWarps_, int kBlocks_, int kEighths_, int kGroups_, int kDeep_>
struct Form {
  static constexpr int kWarps = kWarps_, kBlocks = kBlocks_, kEighths = kEighths_,
                       kGroups = kGroups_, kDeep = kDeep_;
  static constexpr int kRows = kEighths * 8, kCols = kGroups * 8;
  // Of sums in shared memory: no two banks meet.
  static constexpr int kPitch = (kCols + 31) / 32 * 32 + 8;
  static constexpr int kSums = kWarps * kRows * kPitch;
};

// How the rows of W are shared out: `rows` to every block and one more to the first `more`.
struct Shares {
  int rows, more, row_warps, passes;
};

// x times the weights of a norm may leave the range of f16, where the rest of the norm would bring
// it back; so it is kept smaller.
template <class T>
constexpr float kNormScale = dtype_of<T>() == DType::f16 ? 1.f / 32 : 1.f;

// The weights of a norm in shared memory, zeros behind their end.
template <class T>
__device__ __forceinline__ void bring_weights(const SkinnyProduct<T>& a, float* weights, int cols) {
  const float one = a.weight_plus_one ? 1 : 0;
  for (int c = threadIdx.x; c < cols; c += blockDim.x)
    weights[c] = c < a.k ? (a.norm_weight[c] + one) * kNormScale<T> : 0.f;
}

// x *= weights from `weights` on; returns the sum of x^2 before.
template <class T>
__device__ __forceinline__ float apply_weights(uint32_t (&x)[4], const float (&weights)[8]) {
  float square = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const Pack<float, 2> v = widen(reinterpret_cast<const Pack<T, 2>&>(x[i]));
    square += v[0] * v[0] + v[1] * v[1];
    const Pack<T, 2> out =
        narrow<T>(Pack<float, 2>{v[0] * weights[2 * i], v[1] * weights[2 * i + 1]});
    x[i] = reinterpret_cast<const uint32_t&>(out);
  }
  return square;
}

// A norm is applied in two parts: the weights to x, 1 / rms to the sums.
template <class T, class F, bool kNorm>
__global__ void __launch_bounds__(F::kWarps* kWarp, F::kBlocks)
    skinny_kernel(SkinnyProduct<T> a, Shares shares) {
  constexpr int E = F::kEighths, M = (E + 1) / 2, G = F::kGroups;
  extern __shared__ __align__(16) float room[];     // of sums: (kWarps, kRows, kPitch)
  float* squares = room + F::kSums;                 // (kWarps, kRows)
  float* weights = squares + F::kWarps * F::kRows;  // of the norm
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int g = lane / 4, t = lane % 4;
  const int row_warps = shares.row_warps, passes = shares.passes;
  const int rw = warp % row_warps, kw = warp / row_warps, k_warps = F::kWarps / row_warps;
  const unsigned parts = unsigned(row_warps * passes);
  const int block = blockIdx.x;
  const int first = block * shares.rows + (block < shares.more ? block : shares.more);
  const unsigned mine = unsigned(shares.rows + (block < shares.more));
  const int steps = int((a.k + kStep - 1) / kStep);
  // Steps of one pass, in rounds of kDeep.
  const int turns = (steps + k_warps * F::kDeep - 1) / (k_warps * F::kDeep);
  const auto column = [&](int turn) { return (turn * k_warps + kw) * kStep + t * 8; };

  uint32_t wf[F::kDeep][G][4], xf[F::kDeep][E][4];
  float sum[M][G][4] = {}, square[E] = {};

  int w_pass = 0, w_turn = 0, w_first = 0, w_last = 0;
  const auto begin_pass = [&] {
    const unsigned part = unsigned(rw + w_pass * row_warps);
    w_first = first + int(mine * part / parts) + g;
    w_last = w_pass < passes ? first + int(mine * (part + 1) / parts) : 0;
  };
  begin_pass();
  const auto load_w = [&](int slot) {
    const int c = column(w_turn);
    const T* from = a.w + w_first * a.ld_w + c;
#pragma unroll
    for (int i = 0; i < G; ++i)
      stream_in(wf[slot][i], from + i * 8 * a.ld_w, c < a.k && w_first + i * 8 < w_last);
    if (++w_turn == turns * F::kDeep) {
      w_turn = 0;
      ++w_pass;
      begin_pass();
    }
  };
  int x_turn = 0, x_left = passes * turns * F::kDeep;
  const auto load_x = [&](int slot) {
    const int c = column(x_turn);
    const bool inside = x_left-- > 0 && c < a.k;
#pragma unroll
    for (int e = 0; e < E; ++e)
      read_in(xf[slot][e], a.x + (g + e * 8) * a.ld_x + c, inside && g + e * 8 < a.rows);
    if (++x_turn == turns * F::kDeep) x_turn = 0;
  };

  if (!a.weights_are_still) wait_for_previous_kernels();
#pragma unroll
  for (int s = 0; s < F::kDeep; ++s) load_w(s);
  if constexpr (kNorm) bring_weights(a, weights, turns * F::kDeep * k_warps * kStep);
  if (a.weights_are_still) wait_for_previous_kernels();
  // Not before: the next kernel may count on all those before this one to be done.
  let_next_kernel_begin();
#pragma unroll
  for (int s = 0; s < F::kDeep; ++s) load_x(s);
  if constexpr (kNorm) __syncthreads();

  for (int pass = 0; pass < passes; ++pass) {
    for (int turn = 0; turn < turns; ++turn) {
#pragma unroll
      for (int s = 0; s < F::kDeep; ++s) {
        uint32_t(&x)[E][4] = xf[s];
        if constexpr (kNorm) {
          const int c = column(turn * F::kDeep + s);
          float w[8];
          *reinterpret_cast<float4*>(w) = *reinterpret_cast<const float4*>(weights + c);
          *reinterpret_cast<float4*>(w + 4) = *reinterpret_cast<const float4*>(weights + c + 4);
#pragma unroll
          for (int e = 0; e < E; ++e) square[e] += apply_weights<T>(x[e], w);
        }
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
          for (int m = 0; m < M; ++m)
#pragma unroll
            for (int i = 0; i < G; ++i) {
              const bool upper = 2 * m + 1 < E;
              const int u = upper ? 2 * m + 1 : 0;
              const uint32_t rows[4] = {x[2 * m][2 * half], upper ? x[u][2 * half] : 0,
                                        x[2 * m][2 * half + 1], upper ? x[u][2 * half + 1] : 0};
              mma<T>(sum[m][i], rows, wf[s][i][2 * half], wf[s][i][2 * half + 1]);
            }
        load_w(s);
        load_x(s);
      }
    }

    // The sums of the warps of a part, added in order.
    float* own = room + warp * F::kRows * F::kPitch;
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int i = 0; i < G; ++i) {
        float2* lower = reinterpret_cast<float2*>(own + (16 * m + g) * F::kPitch + 8 * i + 2 * t);
        *lower = {sum[m][i][0], sum[m][i][1]};
        if (2 * m + 1 < E) lower[4 * F::kPitch] = {sum[m][i][2], sum[m][i][3]};
        sum[m][i][0] = sum[m][i][1] = sum[m][i][2] = sum[m][i][3] = 0;
      }
    if constexpr (kNorm) {
#pragma unroll
      for (int e = 0; e < E; ++e) {
        square[e] += __shfl_xor_sync(kAllLanes, square[e], 1);
        square[e] += __shfl_xor_sync(kAllLanes, square[e], 2);
        if (t == 0) squares[warp * F::kRows + e * 8 + g] = square[e];
        square[e] = 0;
      }
    }
    if (k_warps > 1)
      __syncthreads();
    else
      __syncwarp();
    const unsigned part = unsigned(rw + pass * row_warps);
    const int begin = int(mine * part / parts), cols = int(mine * (part + 1) / parts) - begin;
    for (int i = kw * kWarp + lane; i < int(a.rows) * F::kCols; i += k_warps * kWarp) {
      const int r = i / F::kCols, c = i % F::kCols;
      if (c >= cols) continue;
      float z = 0, all_squares = 0;
#pragma unroll 4
      for (int p = 0; p < k_warps; ++p) {
        const int row = (p * row_warps + rw) * F::kRows + r;
        z += room[row * F::kPitch + c];
        if constexpr (kNorm) all_squares += squares[row];
      }
      if constexpr (kNorm) z *= 1 / (sqrtf(all_squares / float(a.k) + a.eps) * kNormScale<T>);
      finish(a, r, first + begin + c, z);
    }
    if (k_warps == 1) __syncwarp();
  }
}

// Turns are padded to rounds of kDeep steps.
template <class F, class T>
int64_t shared_bytes(const SkinnyProduct<T>& p) {
  const int64_t weights = p.norm_weight ? p.k + (F::kWarps * F::kDeep + 1) * kStep : 0;
  return int64_t(sizeof(float)) * (F::kSums + F::kWarps * F::kRows + weights);
}

// `waves`: blocks for every place of a block on the device.
template <class T, class F, bool kNorm>
void launch(const SkinnyProduct<T>& p, int waves, cudaStream_t stream) {
  const int most = multiprocessors() * F::kBlocks * waves;
  const int blocks = int(p.n < most ? p.n : most);
  Shares shares{int(p.n / blocks), int(p.n % blocks), 1, 1};
  const int rows = shares.rows + (shares.more > 0);
  while (shares.row_warps < F::kWarps && shares.row_warps * F::kCols < rows) shares.row_warps *= 2;
  const int room = shares.row_warps * F::kCols;
  shares.passes = (rows + room - 1) / room;
  const int bytes = int(shared_bytes<F>(p));
  if (bytes > 48 << 10)
    check_cuda(cudaFuncSetAttribute(skinny_kernel<T, F, kNorm>,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
               kSkinny);
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = unsigned(blocks);
  config.blockDim = unsigned(F::kWarps * kWarp);
  config.dynamicSmemBytes = size_t(bytes);
  config.stream = stream;
  config.attrs = &overlap;
  config.numAttrs = overlaps();
  check_cuda(cudaLaunchKernelEx(&config, skinny_kernel<T, F, kNorm>, p, shares), kSkinny);
}

// kGroups and kDeep fill the registers.
template <int kEighths>
using OneBlock = Form<16, 1, kEighths, 4, kEighths == 1 ? 3 : 2>;
template <int kEighths>
using TwoBlocks = Form<8, 2, kEighths, kEighths == 1 ? 3 : 4, kEighths == 1 ? 4 : 2>;
template <int kEighths>
using TwoWide = Form<8, 2, kEighths, 4, kEighths == 1 ? 3 : 2>;

// Where a multiprocessor has few rows of W, one block with many warps cuts k; otherwise two blocks
// hide each other's ends, and several waves of them their unequal speed. With a norm there is one
// block, which brings the weights once.
template <class T, int kEighths, bool kNorm>
void launch_for(const SkinnyProduct<T>& p, cudaStream_t stream) {
  if constexpr (kNorm) {
    launch<T, OneBlock<kEighths>, true>(p, 1, stream);
  } else {
    const int64_t rows = p.n / multiprocessors();
    if (rows < 32)
      launch<T, OneBlock<kEighths>, false>(p, 1, stream);
    else if (rows < 96)
      launch<T, TwoBlocks<kEighths>, false>(p, 1, stream);
    else if (rows < 400)
      launch<T, TwoWide<kEighths>, false>(p, 2, stream);
    else
      launch<T, TwoBlocks<kEighths>, false>(p, 4, stream);
  }
}

}  // namespace

template <class T>
bool skinny_takes(const SkinnyProduct<T>& p) {
  const auto aligned = [](const void* at, int64_t ld, int64_t rows) {
    return reinterpret_cast<uintptr_t>(at) % 16 == 0 && (rows <= 1 || ld % 8 == 0);
  };
  if (p.rows > kSkinnyRows || p.n >= 1 << 24 || p.k >= 1 << 24 || p.k % 8 != 0 ||
      !aligned(p.x, p.ld_x, p.rows) || !aligned(p.w, p.ld_w, p.n))
    return false;
  return shared_bytes<OneBlock<2>>(p) <= most_shared();
}

template <class T>
void skinny_cuda(Stream stream, const SkinnyProduct<T>& p) {
  if (!skinny_takes(p))
    kernel_error("skinny product: %lld rows of %lld are too many or lie on odd addresses",
                 (long long)p.rows, (long long)p.k);
  if (p.rows == 0 || p.n == 0) return;
  const cudaStream_t s = stream_of(stream);
  if (p.norm_weight)
    p.rows <= 8 ? launch_for<T, 1, true>(p, s) : launch_for<T, 2, true>(p, s);
  else
    p.rows <= 8 ? launch_for<T, 1, false>(p, s) : launch_for<T, 2, false>(p, s);
}

template bool skinny_takes(const SkinnyProduct<bf16>&);
template bool skinny_takes(const SkinnyProduct<f16>&);
template void skinny_cuda(Stream, const SkinnyProduct<bf16>&);
template void skinny_cuda(Stream, const SkinnyProduct<f16>&);

}  // namespace strata
