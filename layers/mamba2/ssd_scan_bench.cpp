// The chunked scan against the matmul rate of the same run, and against the one-token kernel over
// the same tokens.
#include <omp.h>

#include "core/tensor/memory.h"
#include "layers/mamba2/ssd_layout.h"
#include "layers/mamba2/ssd_scan.h"
#include "plugins/host/registry.h"
#include "tests/bench/bench.h"
#include "tests/bench/device/work.h"

namespace strata::bench {

using namespace strata::mamba2;

std::vector<Row> ssd_rows() {
  constexpr int64_t kTokens = 4096, kHeads = 32, kHeadDim = 64, kState = 128;
  static const Op<SsdScanArgs> scan("ssd_scan"), step("ssd_step");
  static const Op<SsdScanBackwardArgs> scan_backward("ssd_scan_backward");
  static Registry registry;  // loads the plugin, which brings the kernels
  registry.create("mamba2", LayerConfig(64, 1, {}, "bench"));
  std::vector<Row> rows;
  for (const int64_t groups : {1, 8}) {
    Memory memory(Device{}, size_t{1} << 30, size_t{2} << 30);
    Context cx(memory, DType::f32);
    auto fresh = [&](const Shape& shape, float low, float high) {
      Tensor t = cx.alloc(shape);
      for (int64_t i = 0; i < t.numel(); ++i)
        t.ptr<float>()[i] = low + (high - low) * float(i * 7919 % 1000) / 1000;
      return t;
    };
    auto grad = [&](const Tensor& like) { return GradTarget{cx.alloc(like.shape), true, false}; };
    SsdScanArgs a;
    a.options = {.n_heads = kHeads, .head_dim = kHeadDim, .n_groups = groups, .d_state = kState};
    a.x = fresh({1, kTokens, kHeads * kHeadDim}, -1, 1);
    a.dt = fresh({1, kTokens, kHeads}, -3, 0);
    a.b = fresh({1, kTokens, groups * kState}, -1, 1);
    a.c = fresh({1, kTokens, groups * kState}, -1, 1);
    a.a_log = fresh({kHeads}, 0, 2);
    a.d = fresh({kHeads}, 0, 1);
    a.dt_bias = fresh({kHeads}, -2, 0);
    a.y = fresh(a.x.shape, 0, 0);
    a.threads = omp_get_max_threads();
    a.workspace = cx.scratch({SsdWorkspace<float>(a, false, nullptr).bytes}, DType::u8);
    SsdScanBackwardArgs b{
        a,         fresh(a.x.shape, -1, 1), {},        grad(a.x),       grad(a.dt), grad(a.b),
        grad(a.c), grad(a.a_log),           grad(a.d), grad(a.dt_bias), {}};
    b.forward.workspace = cx.scratch({SsdWorkspace<float>(a, true, nullptr).bytes}, DType::u8);
    const auto t = medians({[&] { scan(cx, DType::f32, a); }, [&] { step(cx, DType::f32, a); },
                            [&] { scan_backward(cx, DType::f32, b); }, matmul_probe()},
                           9);
    const double flops =
        scan_forward_work({1, kTokens, kHeads, kHeadDim, groups, kState, a.options.chunk_size}, 4)
            .flops;
    const double rate = kProbeFlops / t[3];
    const std::string shape = "1 x 4096, 32 x 64, G " + std::to_string(groups);
    rows.push_back({"ssd_scan forward", shape, flops / t[0] / 1e9, rate / 1e9, "GFLOP/s",
                    "matmul rate", flops / t[0] / rate, 0.4});
    rows.push_back(
        {"ssd_scan forward", shape, t[0] * 1e3, t[1] * 1e3, "ms", "step kernel", t[1] / t[0], 1.0});
    rows.push_back({"ssd_scan backward", shape, t[2] * 1e3, 3 * t[0] * 1e3, "ms", "3 times forward",
                    3 * t[0] / t[2], 1.0});
  }
  return rows;
}

}  // namespace strata::bench
