// The scan alone, the whole mixer between in_proj and out_proj, and the one-token update, as
// mamba2.cpp calls them: inputs are slices of in_proj's and the convolution's outputs.
#include <memory>

#include "core/ops/causal_conv1d.h"
#include "core/ops/rms_norm.h"
#include "layers/mamba2/ssd_scan.h"
#include "tests/bench/device/case.h"

namespace strata::bench {
namespace {

using mamba2::SsdScanOptions;

struct Mixer {
  ScanShape s;
  Tensor all, xbc;  // outputs of in_proj and of the convolution
  Param taps, bias, a_log, d, dt_bias, norm;

  Mixer(Rig& rig, const ScanShape& s)
      : s(s),
        all(rig.random({s.batch, s.seq_len, s.projected()})),
        xbc(rig.random({s.batch, s.seq_len, s.channels()})),
        taps(rig.param({s.channels(), 1, s.kernel}, -0.5, 0.5)),
        bias(rig.param({s.channels()}, -0.5, 0.5, Keep::accum)),
        a_log(rig.param({s.heads}, 0, 2.7, Keep::accum)),
        d(rig.param({s.heads}, 1, 1, Keep::accum)),
        dt_bias(rig.param({s.heads}, -6, -2, Keep::accum)),
        norm(rig.param({s.d_inner()}, 0.5, 1.5, Keep::accum)) {}

  Tensor scan(Context& cx, Tensor all, Tensor xbc, Pass& pass) const {
    SsdScanOptions o;
    o.n_heads = s.heads, o.head_dim = s.head_dim, o.n_groups = s.groups, o.d_state = s.d_state;
    o.chunk_size = s.chunk;
    return mamba2::ssd_scan(
        cx, cx.columns(xbc, 0, s.d_inner()), cx.columns(all, s.d_inner() + s.channels(), s.heads),
        cx.columns(xbc, s.d_inner(), s.d_bc()), cx.columns(xbc, s.d_inner() + s.d_bc(), s.d_bc()),
        a_log, d, dt_bias, o, pass);
  }
  Tensor whole(Context& cx, Tensor all, Pass& pass) const {
    const Tensor xbc = causal_conv1d(cx, cx.columns(all, s.d_inner(), s.channels()), taps, bias,
                                     pass, {.silu = true});
    return gated_rms_norm(cx, scan(cx, all, xbc, pass), cx.columns(all, 0, s.d_inner()), norm,
                          {.group = s.d_inner() / s.groups});
  }
};

Runs scan_forward(Rig& rig, const ScanShape& s) {
  const Mixer m(rig, s);
  auto pass = std::make_shared<RigPass>();
  return rig.forward([=, &rig] { m.scan(rig.cx, m.all, m.xbc, *pass); });
}

Runs scan_backward(Rig& rig, const ScanShape& s) {
  const Mixer m(rig, s);
  auto pass = std::make_shared<RigPass>();
  return rig.backward(
      [=, &rig] { return m.scan(rig.cx, rig.variable(m.all), rig.variable(m.xbc), *pass); });
}

Runs mixer_forward(Rig& rig, const ScanShape& s) {
  const Mixer m(rig, s);
  auto pass = std::make_shared<RigPass>();
  return rig.forward([=, &rig] { m.whole(rig.cx, m.all, *pass); });
}

Runs mixer_backward(Rig& rig, const ScanShape& s) {
  const Mixer m(rig, s);
  auto pass = std::make_shared<RigPass>();
  return rig.backward([=, &rig] { return m.whole(rig.cx, rig.variable(m.all), *pass); });
}

// The states of several layers in turn, more than a cache of the chip holds.
Runs state_update(Rig& rig, const ScanShape& s) {
  const int layers = s.batch < 64 ? 27 : 6;
  const Mixer m(rig, s);
  auto passes = std::make_shared<std::vector<RigPass>>();
  for (int i = 0; i < layers; ++i) passes->emplace_back(rig.clock(), rig.cx.device(), s.batch, 0);
  Runs runs = rig.forward([=, &rig] {
    for (RigPass& pass : *passes) m.scan(rig.cx, m.all, m.xbc, pass);
  });
  runs.repeats = layers;
  return runs;
}

}  // namespace

std::vector<Case> mamba2_cases(Scale scale, int64_t element) {
  const bool tiny = scale == Scale::tiny;
  ScanShape s{8, 8192, 128, 80, 8, 128};
  if (tiny) s = {2, 40, 4, 16, 2, 16};
  std::vector<Case> cases;
  const auto add_scan = [&](const ScanShape& s) {
    const std::string size = batch_by(s.batch, s.seq_len);
    cases.push_back(op_case("ssd_forward/" + size, scan_forward_work(s, element),
                            [=](Rig& rig) { return scan_forward(rig, s); }));
    cases.push_back(op_case("ssd_backward/" + size, scan_backward_work(s, element),
                            [=](Rig& rig) { return scan_backward(rig, s); }));
  };
  add_scan(s);
  ScanShape alone = s;
  alone.batch = 1, alone.seq_len = tiny ? 20 : 2048;
  add_scan(alone);
  const std::string size = batch_by(s.batch, s.seq_len);
  cases.push_back(op_case("mixer_forward/" + size, mixer_forward_work(s, element),
                          [=](Rig& rig) { return mixer_forward(rig, s); }));
  cases.push_back(op_case("mixer_backward/" + size, mixer_backward_work(s, element),
                          [=](Rig& rig) { return mixer_backward(rig, s); }));
  s.seq_len = 1;
  for (const int64_t batch : {1, 8, 64}) {
    s.batch = batch;
    cases.push_back(op_case("state_update/" + std::to_string(batch), state_update_work(s, element),
                            [=](Rig& rig) { return state_update(rig, s); }));
  }
  for (Case& c : cases)
    c.measure = [measure = std::move(c.measure)](Env& env) {
      // The plugin brings the kernels.
      env.registry.create("mamba2", LayerConfig(64, 1, {}, "bench"));
      return measure(env);
    };
  return cases;
}

}  // namespace strata::bench
