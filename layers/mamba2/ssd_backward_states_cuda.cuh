// The states at the starts of all chunks and their gradients at the ends of all chunks. A block
// walks one head of one sequence, blockIdx.z = 0 from the first chunk to the last, 1 from the last
// to the first, and keeps the (N, P) matrix in accumulators:
//   S <- p_Q S + B^T (tail o x)        dS <- p_Q dS + C^T (p o dy)
// with p_i = a_1 ... a_i and tail_j = dt_j a_{j+1} ... a_Q.
#pragma once

#include "layers/mamba2/ssd_backward_cuda.cuh"

namespace strata::mamba2 {
namespace {

template <int P, int N>
struct StatesShared {
  struct Stage {
    alignas(16) bf16 rows[kQ * padded_row(P)];  // x or dy
    bf16 columns[kQ * padded_row(N)];           // B or C
    float decay[kQ], dt[kQ];
  };
  Stage stages[3];
};

template <int P, int N>
__global__ void __launch_bounds__(2 * N, 256 / N) states_kernel(Back k) {
  constexpr int kBlock = 2 * N;  // a warp per 16 states
  extern __shared__ __align__(16) char shared[];
  StatesShared<P, N>& l = *reinterpret_cast<StatesShared<P, N>*>(shared);
  const int thread = threadIdx.x, warp = thread / kWarp, lane = thread % kWarp;
  const int64_t head = blockIdx.x, batch = blockIdx.y, group = head / k.s.heads_per_group;
  const bool back = blockIdx.z == 1;
  const int dim = int(k.s.dim), n = int(k.s.states);
  const Tensor rows = back ? k.args.dy : k.args.forward.x;
  const Tensor columns = back ? k.args.forward.c : k.args.forward.b;
  const bool row_packs = back ? k.dy.packs : k.x.packs;
  const bool column_packs = back ? k.c.packs : k.b.packs;

  const auto chunk_at = [&](int64_t step) { return back ? k.s.chunks - 1 - step : step; };
  const auto load = [&](int64_t step) {
    auto& stage = l.stages[step % 3];
    const int64_t chunk = chunk_at(step), row0 = batch * k.s.seq_len + chunk * kQ;
    const int tokens = k.tokens(chunk);
    load_tile<P, kBlock>(stage.rows, rows.row<bf16>(row0) + head * dim, rows.pitch, tokens, dim,
                         row_packs);
    load_tile<N, kBlock>(stage.columns, columns.row<bf16>(row0) + group * n, columns.pitch, tokens,
                         n, column_packs);
    const int64_t from = k.pair(batch, chunk, head) * kQ;
    load_all<kQ, kBlock>(stage.decay, k.w.decay + from);
    load_all<kQ, kBlock>(stage.dt, k.w.dt + from);
  };

  // This lane's (state, p) of accumulator entry e of tile i.
  const int state0 = warp * 16 + lane / 4, p0 = lane % 4 * 2;
  float acc[P / 8][4] = {};
  const float* start = nullptr;
  const int64_t size = int64_t(dim) * n;
  if (back) {
    if (k.args.dfinal_state)
      start = k.args.dfinal_state.ptr<float>() + (batch * k.s.heads + head) * size;
  } else if (k.args.forward.state) {
    start = k.args.forward.state.row<float>(batch) + head * size;
  } else if (k.args.forward.initial_state) {
    start = k.args.forward.initial_state.ptr<float>() + (batch * k.s.heads + head) * size;
  }
  const auto each = [&](const auto& visit) {  // of the entries that exist
#pragma unroll
    for (int i = 0; i < P / 8; ++i)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int p = 8 * i + p0 + e % 2, state = state0 + e / 2 * 8;
        if (p < dim && state < n) visit(int64_t(p) * n + state, acc[i][e]);
      }
  };
  if (start) each([&](int64_t at, float& value) { value = start[at]; });

  // What is left after the last step: nobody's state forwards, the initial state's gradient back.
  const int64_t steps = k.s.chunks;
  const bool finish = back && k.args.dinitial_state.wanted;
  load(0);
  commit_copies();
  if (steps > 1) load(1);
  commit_copies();
  for (int64_t step = 0; step < steps; ++step) {
    const int64_t chunk = chunk_at(step);
    uint32_t* const to = reinterpret_cast<uint32_t*>(back ? k.dstate(k.pair(batch, chunk, head))
                                                          : k.state(k.pair(batch, chunk, head)));
#pragma unroll
    for (int i = 0; i < P / 8; ++i) {
      to[tile_offset<P>(2 * warp, i) / 2 + lane] = pack2<bf16>(acc[i][0], acc[i][1]);
      to[tile_offset<P>(2 * warp + 1, i) / 2 + lane] = pack2<bf16>(acc[i][2], acc[i][3]);
    }
    if (step + 1 == steps && !finish) break;
    wait_copies<1>();
    __syncthreads();
    if (step + 2 < steps) load(step + 2);
    commit_copies();
    auto& stage = l.stages[step % 3];
    const float total = stage.decay[kQ - 1];
    const float last = exp2_fast(total);
#pragma unroll
    for (int i = 0; i < P / 8; ++i)
#pragma unroll
      for (int e = 0; e < 4; ++e) acc[i][e] *= last;
    const uint32_t left = shared_address(stage.columns + warp * 16 + lane_offset_b(padded_row(N)));
    const uint32_t right = shared_address(stage.rows + lane_offset(padded_row(P)));
#pragma unroll
    for (int t = 0; t < kQ; t += 16) {
      uint32_t a[4];
      load_matrix_transposed(a, left + t * padded_row(N) * 2);
      const auto factor = [&](int token) {
        const float2 decay = *reinterpret_cast<const float2*>(stage.decay + token);
        if (back) return float2{exp2_fast(decay.x), exp2_fast(decay.y)};
        const float2 dt = *reinterpret_cast<const float2*>(stage.dt + token);
        return float2{dt.x * exp2_fast(total - decay.x), dt.y * exp2_fast(total - decay.y)};
      };
      const float2 low = factor(t + p0), high = factor(t + 8 + p0);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 v = unpack2<bf16>(a[i]), f = i < 2 ? low : high;
        a[i] = pack2<bf16>(v.x * f.x, v.y * f.y);
      }
#pragma unroll
      for (int i = 0; i < P / 8; i += 2) {
        uint32_t b[4];
        load_matrix_transposed(b, right + (t * padded_row(P) + i * 8) * 2);
        mma<bf16>(acc[i], a, b[0], b[1]);
        mma<bf16>(acc[i + 1], a, b[2], b[3]);
      }
    }
  }
  if (!finish) return;
  float* const to = k.args.dinitial_state.grad.ptr<float>() + (batch * k.s.heads + head) * size;
  each([&](int64_t at, float& value) { put(to + at, value, k.args.dinitial_state.accumulate); });
}

}  // namespace
}  // namespace strata::mamba2
