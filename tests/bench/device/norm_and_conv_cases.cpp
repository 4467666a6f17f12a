// The convolution and the gated norm around the scan of a Mamba-2 mixer, on slices of in_proj's
// output as in the model: 128 heads x 80, 8 groups, d_state 128.
#include <memory>

#include "core/ops/causal_conv1d.h"
#include "core/ops/rms_norm.h"
#include "tests/bench/device/case.h"

namespace strata::bench {
namespace {

struct Inputs {
  ScanShape s;
  Tensor all;  // in_proj's output
  Param taps, bias;

  Inputs(Rig& rig, const ScanShape& s)
      : s(s),
        all(rig.random({s.batch, s.seq_len, s.projected()})),
        taps(rig.param({s.channels(), 1, s.kernel}, -0.5, 0.5)),
        bias(rig.param({s.channels()}, -0.5, 0.5, Keep::accum)) {}

  Tensor conv(Context& cx, Tensor from, Pass& pass) const {
    return causal_conv1d(cx, cx.columns(from, s.d_inner(), s.channels()), taps, bias, pass,
                         {.silu = true});
  }
};

Runs conv_forward(Rig& rig, const ScanShape& s) {
  const Inputs in(rig, s);
  auto pass = std::make_shared<RigPass>();
  return rig.forward([=, &rig] { in.conv(rig.cx, in.all, *pass); });
}

Runs conv_backward(Rig& rig, const ScanShape& s) {
  const Inputs in(rig, s);
  auto pass = std::make_shared<RigPass>();
  return rig.backward([=, &rig] { return in.conv(rig.cx, rig.variable(in.all), *pass); });
}

// The tails of all 27 layers in turn.
Runs conv_update(Rig& rig, const ScanShape& s) {
  constexpr int kLayers = 27;
  const Inputs in(rig, s);
  auto layers = std::make_shared<std::vector<RigPass>>();
  for (int i = 0; i < kLayers; ++i) layers->emplace_back(rig.clock(), rig.cx.device(), s.batch, 0);
  Runs runs = rig.forward([=, &rig] {
    for (RigPass& pass : *layers) in.conv(rig.cx, in.all, pass);
  });
  runs.repeats = kLayers;
  return runs;
}

struct NormInputs {
  ScanShape s;
  Tensor all, y;
  Param weight;

  NormInputs(Rig& rig, const ScanShape& s)
      : s(s),
        all(rig.random({s.batch, s.seq_len, s.projected()})),
        y(rig.random({s.batch, s.seq_len, s.d_inner()})),
        weight(rig.param({s.d_inner()}, 0.5, 1.5, Keep::accum)) {}

  Tensor norm(Context& cx, Tensor x, Tensor from) const {
    return gated_rms_norm(cx, x, cx.columns(from, 0, s.d_inner()), weight,
                          {.group = s.d_inner() / s.groups});
  }
};

Runs norm_forward(Rig& rig, const ScanShape& s) {
  const NormInputs in(rig, s);
  return rig.forward([=, &rig] { in.norm(rig.cx, in.y, in.all); });
}

Runs norm_backward(Rig& rig, const ScanShape& s) {
  const NormInputs in(rig, s);
  return rig.backward(
      [=, &rig] { return in.norm(rig.cx, rig.variable(in.y), rig.variable(in.all)); });
}

}  // namespace

std::vector<Case> norm_and_conv_cases(Scale scale, int64_t element) {
  const bool tiny = scale == Scale::tiny;
  ScanShape s{8, 8192, 128, 80, 8, 128};
  if (tiny) s = {2, 40, 4, 16, 2, 16};
  const std::string size = batch_by(s.batch, s.seq_len);
  std::vector<Case> cases;
  cases.push_back(op_case("conv_forward/" + size, conv_forward_work(s, element),
                          [=](Rig& rig) { return conv_forward(rig, s); }));
  cases.push_back(op_case("conv_backward/" + size, conv_backward_work(s, element),
                          [=](Rig& rig) { return conv_backward(rig, s); }));
  cases.push_back(op_case("gated_norm_forward/" + size, gated_norm_forward_work(s, element),
                          [=](Rig& rig) { return norm_forward(rig, s); }));
  cases.push_back(op_case("gated_norm_backward/" + size, gated_norm_backward_work(s, element),
                          [=](Rig& rig) { return norm_backward(rig, s); }));
  s.seq_len = 1;
  for (const int64_t batch : {1, 8, 64}) {
    s.batch = batch;
    cases.push_back(op_case("conv_update/" + std::to_string(batch), conv_update_work(s, element),
                            [=](Rig& rig) { return conv_update(rig, s); }));
  }
  return cases;
}

}  // namespace strata::bench
