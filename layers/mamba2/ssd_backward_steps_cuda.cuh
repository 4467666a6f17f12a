// Step sizes and decays of all tokens, and what comes back to them.
#pragma once

#include "layers/mamba2/ssd_backward_cuda.cuh"

namespace strata::mamba2 {
namespace {

constexpr int kStepHeads = 32;  // heads of a block; blockIdx: (batch * chunk, tile of heads)
constexpr int kStepPitch = kStepHeads + 1;

// Step size and decay of one token: dt = clamp(softplus(raw)), log2 a.
struct StepSize {
  float dt, log_a, open;  // open: d(dt)/d(raw)
  bool gone;              // a = 0: nothing flows through the decay

  __device__ __forceinline__ StepSize(float raw, float rate, bool boundary, float low, float high) {
    const float soft = fmaxf(raw, 0.f) + log1pf(expf(-fabsf(raw)));
    open = soft >= low && soft <= high ? sigmoid_of(raw) : 0.f;
    dt = soft < low ? low : soft > high ? high : soft;
    log_a = -rate * dt * kLog2e;
    gone = boundary || log_a <= kGone;
    if (gone) log_a = kGone;
  }
};

// The raw steps of a chunk, and which of its tokens begin a document.
struct StepTile {
  float raw[kQ * kStepPitch];  // dt + dt_bias
  bool boundary[kQ];

  __device__ __forceinline__ void load(const Back& k, int64_t batch, int64_t chunk, int64_t head0,
                                       int tokens) {
    const SsdScanArgs& a = k.args.forward;
    const int64_t row0 = batch * k.s.seq_len + chunk * kQ;
    for (int e = threadIdx.x; e < kQ * kStepHeads; e += kThreads) {
      const int t = e / kStepHeads, h = e % kStepHeads;
      float value = 0;
      if (t < tokens && head0 + h < k.s.heads)
        value = wide(a.dt.row<bf16>(row0 + t)[head0 + h]) +
                (a.dt_bias ? a.dt_bias.ptr<float>()[head0 + h] : 0.f);
      raw[t * kStepPitch + h] = value;
    }
    if (threadIdx.x < kQ) {
      const int t = threadIdx.x;
      const int32_t* id = a.seq_idx ? a.seq_idx.ptr<int32_t>() + row0 + t : nullptr;
      boundary[t] = id && t < tokens && chunk * kQ + t > 0 && id[0] != id[-1];
    }
    __syncthreads();
  }
  __device__ __forceinline__ StepSize step(const Back& k, int t, int h, float rate) const {
    return {raw[t * kStepPitch + h], rate, boundary[t], float(k.args.forward.options.dt_min),
            float(k.args.forward.options.dt_max)};
  }
};

// A warp takes a head, a lane two tokens.
__global__ void __launch_bounds__(kThreads) steps_kernel(Back k) {
  __shared__ StepTile tile;
  const int lane = threadIdx.x % kWarp;
  const int64_t batch = blockIdx.x / k.s.chunks, chunk = blockIdx.x % k.s.chunks;
  const int64_t head0 = int64_t(blockIdx.y) * kStepHeads;
  const int tokens = k.tokens(chunk);
  tile.load(k, batch, chunk, head0, tokens);
  for (int h = threadIdx.x / kWarp; h < kStepHeads && head0 + h < k.s.heads;
       h += kThreads / kWarp) {
    const float rate = expf(k.args.forward.a_log.ptr<float>()[head0 + h]);
    float dt[2] = {}, log_a[2] = {};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (2 * lane + i >= tokens) continue;
      const StepSize step = tile.step(k, 2 * lane + i, h, rate);
      dt[i] = step.dt, log_a[i] = step.log_a;
    }
    float sum = log_a[0] + log_a[1];
#pragma unroll
    for (int offset = 1; offset < kWarp; offset *= 2) {
      const float before = __shfl_up_sync(kAllLanes, sum, offset);
      if (lane >= offset) sum += before;
    }
    const int64_t to = k.pair(batch, chunk, head0 + h) * kQ + 2 * lane;
    *reinterpret_cast<float2*>(k.w.dt + to) = {dt[0], dt[1]};
    *reinterpret_cast<float2*>(k.w.decay + to) = {sum - log_a[1], sum};
  }
}

// From the gradients of the running sums of log a (dlog) and of dt itself (ddt): d(dt_raw), and
// each chunk's sums for dA_log and ddt_bias.
__global__ void __launch_bounds__(kThreads) step_gradients_kernel(Back k) {
  __shared__ StepTile tile;
  __shared__ float out[kQ * kStepPitch];
  const int lane = threadIdx.x % kWarp;
  const int64_t batch = blockIdx.x / k.s.chunks, chunk = blockIdx.x % k.s.chunks;
  const int64_t head0 = int64_t(blockIdx.y) * kStepHeads;
  const int64_t pairs = k.s.batch * k.s.chunks * k.s.heads;
  const int tokens = k.tokens(chunk);
  tile.load(k, batch, chunk, head0, tokens);
  for (int h = threadIdx.x / kWarp; h < kStepHeads && head0 + h < k.s.heads;
       h += kThreads / kWarp) {
    const int64_t pair = k.pair(batch, chunk, head0 + h), from = pair * kQ + 2 * lane;
    const float rate = expf(k.args.forward.a_log.ptr<float>()[head0 + h]);
    const float2 dlog = *reinterpret_cast<const float2*>(k.w.dlog + from);
    const float2 ddt = *reinterpret_cast<const float2*>(k.w.ddt + from);
    float sum = dlog.x + dlog.y;  // from this lane's tokens on: the gradient of log a
#pragma unroll
    for (int offset = 1; offset < kWarp; offset *= 2) {
      const float after = __shfl_down_sync(kAllLanes, sum, offset);
      if (lane + offset < kWarp) sum += after;
    }
    const float da[2] = {sum, sum - dlog.x}, direct[2] = {ddt.x, ddt.y};
    float rates = 0, biases = 0;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int t = 2 * lane + i;
      if (t >= tokens) continue;
      const StepSize step = tile.step(k, t, h, rate);
      const float through = step.gone ? 0.f : -rate * da[i];
      const float draw = (direct[i] + through) * step.open;
      rates += step.dt * through, biases += draw;
      out[t * kStepPitch + h] = draw;
    }
    rates = warp_sum(rates), biases = warp_sum(biases);
    if (lane == 0) k.w.sums[pair] = rates, k.w.sums[2 * pairs + pair] = biases;
  }
  if (!k.args.ddt.wanted) return;
  __syncthreads();
  const int64_t row0 = batch * k.s.seq_len + chunk * kQ;
  for (int e = threadIdx.x; e < tokens * kStepHeads; e += kThreads) {
    const int t = e / kStepHeads, h = e % kStepHeads;
    if (head0 + h >= k.s.heads) continue;
    bf16* const to = k.args.ddt.grad.row<bf16>(row0 + t) + head0 + h;
    const float value = out[t * kStepPitch + h];
    *to = __float2bfloat16_rn(k.args.ddt.accumulate ? value + wide(*to) : value);
  }
}

// dA_log, dD and ddt_bias: sums over batch and chunks. blockIdx: head, which.
__global__ void __launch_bounds__(kThreads) sum_chunks_kernel(Back k) {
  __shared__ float room[kThreads / kWarp];
  const GradTarget& to = blockIdx.y == 0   ? k.args.da_log
                         : blockIdx.y == 1 ? k.args.dd
                                           : k.args.ddt_bias;
  if (!to.wanted) return;
  const int64_t places = k.s.batch * k.s.chunks, heads = k.s.heads, h = blockIdx.x;
  float sum = 0;
  for (int64_t i = threadIdx.x; i < places; i += blockDim.x)
    sum += k.w.sums[(blockIdx.y * places + i) * heads + h];
  sum = block_sum(sum, room);
  if (threadIdx.x == 0) put(to.grad.ptr<float>() + h, sum, to.accumulate);
}

// dB (blockIdx.y = 0) and dC of a group from the shares of its slices of heads, in their order.
__global__ void __launch_bounds__(kThreads) sum_slices_kernel(Back k) {
  const GradTarget& to = blockIdx.y == 0 ? k.args.db : k.args.dc;
  if (!to.wanted) return;
  const float* parts = blockIdx.y == 0 ? k.w.db : k.w.dc;
  const int64_t width = k.s.groups * k.s.states, size = k.s.batch * k.s.seq_len * width;
  STRATA_GRID_LOOP(i, size) {
    float sum = 0;
    for (int64_t slice = 0; slice < k.s.slices; ++slice) sum += parts[slice * size + i];
    bf16* const at = to.grad.row<bf16>(i / width) + i % width;
    *at = __float2bfloat16_rn(to.accumulate ? sum + wide(*at) : sum);
  }
}

}  // namespace
}  // namespace strata::mamba2
