// Causal attention over tensors, and of one token over pages: GQA of 40/8 heads x 128.
#include <memory>

#include "core/ops/attend.h"
#include "tests/bench/device/case.h"

namespace strata::bench {
namespace {

AttendOptions options_of(const AttentionShape& s) {
  return {.n_heads = s.heads, .n_kv_heads = s.kv_heads, .head_dim = s.head_dim};
}

struct Inputs {
  Tensor q, k, v;
  Inputs(Rig& rig, const AttentionShape& s)
      : q(rig.random({s.batch, s.seq_len, s.width()})),
        k(rig.random({s.batch, s.seq_len, s.kv_width()})),
        v(rig.random({s.batch, s.seq_len, s.kv_width()})) {}
};

Runs forward(Rig& rig, const AttentionShape& s) {
  const Inputs in(rig, s);
  return rig.forward([=, &rig] { attend(rig.cx, in.q, in.k, in.v, options_of(s), Tensor{}); });
}

Runs backward(Rig& rig, const AttentionShape& s) {
  const Inputs in(rig, s);
  return rig.backward([=, &rig] {
    return attend(rig.cx, rig.variable(in.q), rig.variable(in.k), rig.variable(in.v), options_of(s),
                  Tensor{});
  });
}

// The caches of several layers in turn, so that none is found in a cache of the chip.
Runs decode(Rig& rig, const AttentionShape& s) {
  constexpr int kLayers = 4;
  const AttentionShape step{s.batch, 1, s.heads, s.kv_heads, s.head_dim};
  const Inputs in(rig, step);
  auto layers = std::make_shared<std::vector<RigPass>>();
  for (int i = 0; i < kLayers; ++i)
    layers->emplace_back(rig.clock(), rig.cx.device(), s.batch, s.seq_len - 1);
  Runs runs = rig.forward([=, &rig] {
    for (RigPass& pass : *layers) attend(rig.cx, in.q, in.k, in.v, options_of(s), pass);
  });
  runs.repeats = kLayers;
  return runs;
}

}  // namespace

std::vector<Case> attention_cases(Scale scale, int64_t element) {
  const bool tiny = scale == Scale::tiny;
  AttentionShape s{2, 8192, 40, 8, 128};
  if (tiny) s = {2, 48, 4, 2, 16};
  const std::string size = batch_by(s.batch, s.seq_len);
  std::vector<Case> cases;
  cases.push_back(op_case("attention_forward/" + size, attention_forward_work(s, element),
                          [=](Rig& rig) { return forward(rig, s); }));
  cases.push_back(op_case("attention_backward/" + size, attention_backward_work(s, element),
                          [=](Rig& rig) { return backward(rig, s); }));
  for (auto [batch, context] :
       {std::pair<int64_t, int64_t>{1, tiny ? 200 : 65536}, {tiny ? 3 : 64, tiny ? 70 : 4096}}) {
    s.batch = batch, s.seq_len = context;
    cases.push_back(op_case("attention_decode/" + batch_by(batch, context),
                            attention_decode_work(s, element),
                            [=](Rig& rig) { return decode(rig, s); }));
  }
  return cases;
}

}  // namespace strata::bench
