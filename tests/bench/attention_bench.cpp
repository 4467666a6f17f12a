// Tiled attention against the matmul rate of the same run, in its own flops (causal half).
#include "core/model/plan.h"
#include "core/ops/attend.h"
#include "core/tensor/memory.h"
#include "tests/bench/bench.h"
#include "tests/bench/device/work.h"

namespace strata::bench {

std::vector<Row> attention_rows() {
  constexpr int64_t kTokens = 4096, kHeads = 16, kHeadDim = 64, kWidth = kHeads * kHeadDim;
  Memory memory(Device{}, size_t{1} << 30, size_t{1} << 30);
  Context cx(memory, DType::f32);
  auto fresh = [&] {
    Tensor t = cx.alloc({1, kTokens, kWidth});
    for (int64_t i = 0; i < t.numel(); ++i)
      t.ptr<float>()[i] = float((i * 7919 % 1000) / 1000.0 - 0.5);
    return t;
  };
  Tensor q = fresh(), k = fresh(), v = fresh();
  const AttendOptions options{.n_heads = kHeads, .n_kv_heads = kHeads, .head_dim = kHeadDim};
  const size_t activations = memory.activations.mark(), scratch = memory.scratch.mark();
  auto forward = [&] {
    attend(cx, q, k, v, options, Tensor{});
    memory.activations.release(activations);
  };
  auto both = [&] {
    cx.set_recording(true);
    const Tensor tq = cx.track(q), tk = cx.track(k), tv = cx.track(v);
    const Tensor y = attend(cx, tq, tk, tv, options, Tensor{});
    cx.set_grad(y, q);
    cx.replay(0);
    cx.set_recording(false);
    cx.clear_tape();
    memory.activations.release(activations);
    memory.scratch.release(scratch);
  };
  const auto t = medians({forward, both, matmul_probe()}, 9);
  const AttentionShape shape{1, kTokens, kHeads, kHeads, kHeadDim};
  const double flops = attention_forward_work(shape, 4).flops, rate = kProbeFlops / t[2];
  const double backward = t[1] - t[0];
  return {{"attention forward", "1 x 4096, 16 x 64", flops / t[0] / 1e9, rate / 1e9, "GFLOP/s",
           "matmul rate", flops / t[0] / rate, 0.5},
          {"attention backward", "1 x 4096, 16 x 64", 2.5 * flops / backward / 1e9, rate / 1e9,
           "GFLOP/s", "matmul rate", 2.5 * flops / backward / rate, 0}};
}

}  // namespace strata::bench
