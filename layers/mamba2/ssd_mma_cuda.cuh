// What the kernels of the scan for bf16 and f16 share: their arguments, the place of a block, the
// decays of a chunk and the tile of states that a warp holds.
//
// Decays are 2^(L_i - L_j) with L the running sum of log2 |a| and the signs (neg_eig) kept beside
// it. A zero, as of a new document, counts as 2^-192: differences across it vanish in float32, and
// L stays so small that all others keep their digits.
#pragma once

#include "core/kernels/mma.cuh"
#include "core/kernels/pack.cuh"
#include "layers/mamba2/ssd_layout_cuda.h"

namespace strata::mamba2 {

// The scan as warpgroups do it; for args that fit (SsdMmaPlan) on a device that has them.
void ssd_scan_warpgroups(const SsdScanArgs& args, Stream stream);

namespace {

constexpr float kLogZero = -192;  // log2 of a decay that is zero

struct MmaScan {
  SsdScanArgs args;
  SsdMmaPlan plan;
  SsdMmaWorkspace work;
  bool packed_in, packed_out;  // 16-byte accesses to x, B and C; to y
  bool paired_states;          // 8-byte accesses to states

  MmaScan(const SsdScanArgs& a, bool warpgroups)
      : args(a), plan(a, warpgroups), work(plan, a.workspace.ptr<char>()) {
    const bool whole = plan.dim % 8 == 0;
    packed_in = whole && plan.states % 8 == 0 && packable(a.x) && packable(a.b) && packable(a.c);
    packed_out = whole && packable(a.y);
    const auto even = [](const void* at) { return reinterpret_cast<uintptr_t>(at) % 8 == 0; };
    paired_states = plan.states % 2 == 0 && even(a.state.base) && a.state.slot_bytes % 8 == 0 &&
                    even(a.initial_state.data) && even(a.final_state.data);
  }

  STRATA_INLINE bool has_start() const { return args.state || args.initial_state; }
  STRATA_INLINE int64_t state_elements() const { return plan.heads * plan.dim * plan.states; }
  STRATA_INLINE const float* start(int64_t b) const {
    if (args.state) return args.state.row<float>(b);
    return args.initial_state ? args.initial_state.ptr<float>() + b * state_elements() : nullptr;
  }
  STRATA_INLINE float* end(int64_t b) const {
    if (args.state) return args.state.row<float>(b);
    return args.final_state ? args.final_state.ptr<float>() + b * state_elements() : nullptr;
  }
  // States of sequence b in the workspace.
  STRATA_INLINE float* slot(int64_t index, int64_t b) const {
    return work.states + (index * plan.batch + b) * state_elements();
  }
};

// What a block works on.
struct MmaPlace {
  int batch, segment, group, head, count;  // heads [head, head + count)
  int dim0;                                // first row of a head, where it is cut into parts
  int first, last;                         // chunks

  __device__ __forceinline__ explicit MmaPlace(const SsdMmaPlan& p) {
    int i = int(blockIdx.x);
    dim0 = i % int(p.parts) * int(p.tiles * SsdMmaPlan::kTileRows), i /= int(p.parts);
    const int block = i % int(p.head_blocks);
    i /= int(p.head_blocks);
    group = i % int(p.groups), i /= int(p.groups);
    batch = i % int(p.batch), segment = i / int(p.batch);
    head = group * int(p.heads_per_group) + block * int(p.block_heads);
    count = min(int(p.block_heads), int(p.heads_per_group) - block * int(p.block_heads));
    first = segment * int(p.segment_chunks);
    last = min(int(p.chunks), first + int(p.segment_chunks));
  }
};

// Asks for the line of `at` to be brought nearer.
__device__ __forceinline__ void prefetch(const void* at) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
}

// 2^x in one instruction; zero below 2^-126.
__device__ __forceinline__ float power_of_two(float x) {
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
}

// Coefficients of the kQ tokens of a chunk, (kCoefficients, block_heads, kQ) in shared memory.
template <int kQ>
struct MmaCoefficients {
  float* at;
  int stride;
  __device__ __forceinline__ float* log_decay(int h) const { return at + h * kQ; }
  __device__ __forceinline__ float* column(int h) const { return log_decay(h) + stride; }
  __device__ __forceinline__ float* sign(int h) const { return log_decay(h) + 2 * stride; }
  __device__ __forceinline__ float* decay(int h) const { return log_decay(h) + 3 * stride; }
  __device__ __forceinline__ float* tail(int h) const { return log_decay(h) + 4 * stride; }
};

// The decays of one head by one warp, kQ / 32 neighbouring tokens a lane.
template <class T, int kQ>
struct MmaDecays {
  static constexpr int kTokens = kQ / kWarp;
  float total = 0, sign = 1;  // of all chunks so far

  T raw[kTokens];            // of the chunk read last
  int32_t ids[kTokens + 1];  // from the token before it

  // Nothing here waits for what is read; what the next chunk will need is asked for.
  __device__ __forceinline__ void read(const MmaScan& k, int batch, int head, int chunk) {
    const int first = chunk * kQ + int(threadIdx.x) % kWarp * kTokens;
    const int last = int(k.plan.seq_len) - 1, pitch = int(k.args.dt.pitch);
    const int64_t row0 = batch * k.plan.seq_len;
    const T* dt = k.args.dt.row<T>(row0) + head;
#pragma unroll
    for (int i = 0; i < kTokens; ++i) {
      raw[i] = dt[int64_t(min(first + i, last)) * pitch];
      prefetch(dt + int64_t(min(first + kQ + i, last)) * pitch);
    }
    if (!k.args.seq_idx) return;
    const int32_t* id = k.args.seq_idx.ptr<int32_t>() + row0;
#pragma unroll
    for (int i = 0; i <= kTokens; ++i) ids[i] = id[max(min(first + i, last + 1) - 1, 0)];
  }
  // The coefficients of that chunk, as head `h` of `to`.
  __device__ __forceinline__ void write(const MmaScan& k, int head, int chunk,
                                        const MmaCoefficients<kQ>& to, int h) {
    const int lane = threadIdx.x % kWarp, first = chunk * kQ + lane * kTokens;
    const int tokens = int(k.plan.seq_len);
    const float rate = expf(k.args.a_log.ptr<float>()[head]) * 1.44269504f;  // A log2(e)
    const float bias = k.args.dt_bias ? k.args.dt_bias.ptr<float>()[head] : 0.f;
    const float low = float(k.args.options.dt_min), high = float(k.args.options.dt_max);
    float dt[kTokens] = {}, sum[kTokens] = {};
    bool odd[kTokens] = {};
    float lane_sum = 0;
    bool lane_odd = false;
#pragma unroll
    for (int i = 0; i < kTokens; ++i) {
      if (first + i < tokens) {
        const bool reset = k.args.seq_idx && ids[i] != ids[i + 1];
        const float z = wide(raw[i]) + bias;
        const float soft = fmaxf(z, 0.f) + log1pf(expf(-fabsf(z)));
        dt[i] = fminf(fmaxf(soft, low), high);
        float log_a = -rate * dt[i];
        if (k.args.options.neg_eig) {
          const float a = 2 * exp2f(log_a) - 1;
          if (a < 0 && !reset) lane_odd = !lane_odd;
          log_a = log2f(fabsf(a));
        }
        lane_sum += reset ? kLogZero : fmaxf(log_a, kLogZero);
      }
      sum[i] = lane_sum, odd[i] = lane_odd;
    }
    float through = lane_sum;
#pragma unroll
    for (int offset = 1; offset < kWarp; offset *= 2) {
      const float other = __shfl_up_sync(kAllLanes, through, offset);
      if (lane >= offset) through += other;
    }
    const float last = __shfl_sync(kAllLanes, through, kWarp - 1);
    float before = __shfl_up_sync(kAllLanes, through, 1);
    if (lane == 0) before = 0;
    const unsigned flips = __ballot_sync(kAllLanes, lane_odd);
    const bool odd_before = __popc(flips & ((1u << lane) - 1)) % 2;
    const float last_sign = __popc(flips) % 2 ? -1.f : 1.f;
#pragma unroll
    for (int i = 0; i < kTokens; ++i) {
      const int t = lane * kTokens + i;
      const float turn = odd[i] != odd_before ? -1.f : 1.f, log = before + sum[i];
      to.log_decay(h)[t] = log;
      to.column(h)[t] = dt[i] * turn;
      to.sign(h)[t] = turn;
      to.decay(h)[t] = turn * power_of_two(log);
      to.tail(h)[t] = dt[i] * turn * last_sign * power_of_two(last - log);
    }
    total = fmaxf(total + last, 4 * kLogZero), sign *= last_sign;
  }
};

// W = G o M + D of a block of 16 by 16 tokens from (i0, j0), G = C B^T, for every head of the
// block of threads.
template <class T, int kQ>
__device__ __forceinline__ void add_decays(const float (&acc)[2][4], int i0, int j0,
                                           const MmaCoefficients<kQ>& coefs, const Tensor& skips,
                                           const MmaPlace& at, T* w, int pitch) {
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4 * 2;
  const int i = i0 + g;
  for (int h = 0; h < at.count; ++h) {
    const float skip = skips && i0 == j0 ? skips.ptr<float>()[at.head + h] : 0.f;
    const float *logs = coefs.log_decay(h) + i, *signs = coefs.sign(h) + i;
    const float log_i[2] = {logs[0], logs[8]}, sign[2] = {signs[0], signs[8]};
    const auto weight = [&](int ahead, float value) {
      return ahead < 0 ? 0.f : ahead == 0 ? value + skip : value;
    };
    T* to = w + (h * kQ + i) * pitch + j0 + t;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int j = j0 + half * 8 + t;
      const float2 log_j = *reinterpret_cast<const float2*>(coefs.log_decay(h) + j);
      const float2 factor = *reinterpret_cast<const float2*>(coefs.column(h) + j);
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float *sum = &acc[half][2 * e], first = power_of_two(log_i[e] - log_j.x),
                    second = power_of_two(log_i[e] - log_j.y);
        *reinterpret_cast<uint32_t*>(to + e * 8 * pitch + half * 8) =
            pack2<T>(weight(i + e * 8 - j, sum[0] * (sign[e] * factor.x) * first),
                     weight(i + e * 8 - j - 1, sum[1] * (sign[e] * factor.y) * second));
      }
    }
  }
}

// Two numbers of a tile a of x, each times the factor of its token.
template <class T>
__device__ __forceinline__ uint32_t scaled(uint32_t pair, float2 factor) {
  const float2 v = unpack2<T>(pair);
  return pack2<T>(v.x * factor.x, v.y * factor.y);
}

// The tile of states that a warp holds, (16, kN) of S^T, and its way from and to memory.
template <int kN>
struct MmaState {
  float v[kN / 8][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kN / 8; ++i) v[i][0] = v[i][1] = v[i][2] = v[i][3] = 0.f;
  }
  __device__ __forceinline__ void scale(float by) {
#pragma unroll
    for (int i = 0; i < kN / 8; ++i) v[i][0] *= by, v[i][1] *= by, v[i][2] *= by, v[i][3] *= by;
  }
  // f(pointer, value, value, pair is whole) for the pairs of rows p < dim of `state` (dim, n).
  template <class F>
  __device__ __forceinline__ void each_pair(int64_t state_pitch, int rows, int n, const F& f) {
    const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4 * 2;
#pragma unroll
    for (int half = 0; half < 2; ++half)
      if (g + 8 * half < rows) {
#pragma unroll
        for (int i = 0; i < kN / 8; ++i)
          if (i * 8 + t < n)
            f((g + 8 * half) * state_pitch + i * 8 + t, v[i][2 * half], v[i][2 * half + 1],
              i * 8 + t + 1 < n);
      }
  }
  __device__ __forceinline__ void add(const float* from, int rows, int n, bool paired) {
    each_pair(n, rows, n, [&](int64_t e, float& a, float& b, bool both) {
      if (paired) {
        const float2 two = *reinterpret_cast<const float2*>(from + e);
        a += two.x, b += two.y;
      } else {
        a += from[e];
        if (both) b += from[e + 1];
      }
    });
  }
  __device__ __forceinline__ void store(float* to, int rows, int n, bool paired) {
    each_pair(n, rows, n, [&](int64_t e, float& a, float& b, bool both) {
      if (paired) {
        *reinterpret_cast<float2*>(to + e) = {a, b};
      } else {
        to[e] = a;
        if (both) to[e + 1] = b;
      }
    });
  }
};

// Adds to a tile, which is zero, the state at the start of the block's segment. offset: of the tile
// in the states of a sequence.
template <int kN>
__device__ __forceinline__ void state_of_segment(MmaState<kN>& state, const MmaScan& k,
                                                 const MmaPlace& at, int head, int64_t offset,
                                                 int rows) {
  const int n = int(k.plan.states);
  if (k.plan.segments == 1) {
    if (k.has_start()) state.add(k.start(at.batch) + offset, rows, n, k.paired_states);
    return;
  }
  for (int s = k.has_start() ? 0 : 1; s <= at.segment; ++s) {
    if (s > 0)
      state.scale(k.work.decays[(int64_t(s - 1) * k.plan.batch + at.batch) * k.plan.heads + head]);
    state.add(k.slot(s, at.batch) + offset, rows, n, n % 2 == 0);
  }
}

// Leaves what the block's segment adds to the state for the second pass, and, with the first
// segment, the start: the last segment may write the final state before the first one begins.
template <int kN>
__device__ __forceinline__ void keep_segment(MmaState<kN>& state, const MmaScan& k,
                                             const MmaPlace& at, int64_t offset, int rows) {
  const int n = int(k.plan.states);
  state.store(k.slot(at.segment + 1, at.batch) + offset, rows, n, n % 2 == 0);
  if (at.segment > 0 || !k.has_start()) return;
  state.clear();
  state.add(k.start(at.batch) + offset, rows, n, k.paired_states);
  state.store(k.slot(0, at.batch) + offset, rows, n, n % 2 == 0);
}

}  // namespace
}  // namespace strata::mamba2
