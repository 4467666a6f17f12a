// Attention for one new token per sequence over pages of bf16 or f16.
//
// A step reads every key and value once, so it is made to stream: the keys of a sequence are cut
// into splits, a block per split and key-value head, and each warp of a block has its own keys, 16
// at a time, whose copies it begins two turns ahead. All query heads of a key-value head are rows
// of one tile and share each load. The warps' sums are joined in order, then those of the splits.
#include "core/ops/cuda/attend_split.cuh"

namespace strata {
namespace {

// Query heads of a block; keys of a warp's turn.
constexpr int kStepRows = int(kHalfStepRows), kStepKeys = 16;

template <int D>
struct StepTile {
  static constexpr int kWarps = D <= 128 ? 4 : 2, kTurns = 2, P = padded_row(D);
  static constexpr int kElements = kStepKeys * P;  // of the keys, and of the values, of a turn
  static constexpr int kBytes = kWarps * kTurns * 2 * kElements * 2;
  static constexpr int kSumPitch = D + 8;  // of the warps' sums, which come last, f32
  static_assert(kWarps * kStepRows * kSumPitch * 4 <= kBytes);
};

// Two neighbours of a query, as far as there are any.
template <class T>
__device__ __forceinline__ uint32_t query_pair(const T* q, int d, int dim, bool packs) {
  if (packs) return q && d < dim ? *reinterpret_cast<const uint32_t*>(q + d) : 0;
  return pack2<T>(q && d < dim ? wide(q[d]) : 0.f, q && d + 1 < dim ? wide(q[d + 1]) : 0.f);
}

template <class T, int D>
__global__ void __launch_bounds__(StepTile<D>::kWarps* kWarp)
    step_half_kernel(Attention<T> a, int chunks, Partials partials) {
  using Tile = StepTile<D>;
  constexpr int kWarps = Tile::kWarps, kTurns = Tile::kTurns, P = Tile::P;
  constexpr int kElements = Tile::kElements, kStride = kWarps * kStepKeys;
  extern __shared__ __align__(16) char shared_room[];
  __shared__ float tops[kWarps][kStepRows], divisors[kWarps][kStepRows];
  // Key-value heads side by side: what runs together reads neighbouring memory.
  const int g = int(blockIdx.x) % a.n_kv_heads, chunk = int(blockIdx.x) / a.n_kv_heads % chunks;
  const int part = int(blockIdx.x) / a.n_kv_heads / chunks;
  const int split = part % partials.splits, b = part / partials.splits;
  const int heads = min(kStepRows, a.group - chunk * kStepRows);
  const int first_head = g * a.group + chunk * kStepRows;
  const KeySplits cut(a, b, 0, 0, partials.splits);
  const auto [lo, hi] = cut.at(split);
  if (lo >= hi) return;
  const Rows<T> keys(a, a.k, a.k_pitch, a.k_pages, b, g);
  const Rows<T> values(a, a.v, a.v_pitch, a.v_pages, b, g);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  T* ks = reinterpret_cast<T*>(shared_room) + warp * kTurns * 2 * kElements;  // (kTurns, 16, D)
  T* vs = ks + kTurns * kElements;                                            // (kTurns, 16, D)

  int j0 = cut.origin + split * cut.tokens + warp * kStepKeys;
  const auto copy = [&](T* to, const Rows<T>& rows, int j) {
    if (j < hi) copy_keys<T, kStepKeys, D, kWarp>(to, a, rows, j, lo, hi, lane);
    commit_copies();
  };
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) {
    copy(ks + turn * kElements, keys, j0 + turn * kStride);
    copy(vs + turn * kElements, values, j0 + turn * kStride);
  }

  uint32_t q[D / 16][4];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = lane_row() + half * 8;
    const T* from = r < heads ? a.q + a.offset(b, 0, first_head + r, a.q_pitch) : nullptr;
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
      q[k][half] = query_pair(from, k * 16 + lane_column(), a.dim, a.packs);
      q[k][half + 2] = query_pair(from, k * 16 + 8 + lane_column(), a.dim, a.packs);
    }
  }

  const float unit = score_unit(a);
  Softmax<1> softmax;
  float o[1][D / 8][4] = {};
  for (int turn = 0; j0 < hi; j0 += kStride, turn = (turn + 1) % kTurns) {
    T* kt = ks + turn * kElements;
    T* vt = vs + turn * kElements;
    wait_copies<2 * kTurns - 1>();
    __syncwarp();
    float s[1][2][4] = {};
    const uint32_t at = shared_address(kt + lane_offset_b(P));
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
      uint32_t column[4];
      load_matrix(column, at + 2 * k * 16);
      mma<T>(s[0][0], q[k], column[0], column[1]);
      mma<T>(s[0][1], q[k], column[2], column[3]);
    }
    __syncwarp();
    copy(kt, keys, j0 + kTurns * kStride);
    cap_scores(a, s);
    if (j0 < lo || j0 + kStepKeys > hi) {
#pragma unroll
      for (int j = 0; j < 2; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int key = j0 + j * 8 + lane_column() + e % 2;
          if (key < lo || key >= hi) s[0][j][e] = -INFINITY;
        }
    }
    softmax.add(s, o, unit);
    wait_copies<2 * kTurns - 1>();
    __syncwarp();
    add_weighted<T, D>(s, vt, o);
    __syncwarp();
    copy(vt, values, j0 + kTurns * kStride);
  }
  wait_copies<0>();

  // The warps' sums take the place of keys and values.
  __syncthreads();
  float* sums = reinterpret_cast<float*>(shared_room);  // (kWarps, kStepRows, D)
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = lane_row() + half * 8;
    const float sum = quad_sum(softmax.sum[0][half]);
    if (r >= heads) continue;
#pragma unroll
    for (int c = 0; c < D / 8; ++c)
      store_pack(sums + (warp * kStepRows + r) * Tile::kSumPitch + c * 8 + lane_column(),
                 Pack<float, 2>{o[0][c][2 * half], o[0][c][2 * half + 1]});
    if (lane % 4 == 0) tops[warp][r] = softmax.top[0][half] * unit, divisors[warp][r] = sum;
  }
  __syncthreads();
  const int width = partials.pitch - 4;
  for (int i = threadIdx.x; i < heads * width; i += kWarps * kWarp) {
    const int r = i / width, d = i % width;
    float top = tops[0][r];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) top = fmaxf(top, tops[w][r]);
    float sum = 0, divisor = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float factor = exp2_fast(tops[w][r] - top);
      sum += factor * sums[(w * kStepRows + r) * Tile::kSumPitch + d];
      divisor += factor * divisors[w][r];
    }
    float* out = partials.at(a.head_offset(b, 0, first_head + r), split);
    out[d] = sum;
    if (d == 0) store_pack(out + width, Pack<float, 2>{top, divisor});
  }
}

template <class T>
void attend_step_half(const AttendArgs& args, Stream s) {
  check_types(args);
  const Attention<T> a(args);
  const Partials partials = partials_of(args, false);
  with_half_width(a.dim, [&](auto width) {
    constexpr int D = decltype(width)::value;
    using Tile = StepTile<D>;
    const int chunks = (a.group + kStepRows - 1) / kStepRows;
    const int64_t blocks = int64_t(a.batch) * a.n_kv_heads * chunks * partials.splits;
    launch_shared(&step_half_kernel<T, D>, blocks, Tile::kWarps * kWarp, Tile::kBytes, stream_of(s),
                  a, chunks, partials);
  });
  join_splits(a, partials, a.group, a.group, stream_of(s));
  check_launch("attend_step");
}

}  // namespace

STRATA_CUDA_HALF_KERNEL("attend_step", AttendArgs, attend_step_half)

}  // namespace strata
