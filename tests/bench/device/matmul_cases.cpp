// Products of the Nemotron-Nano-9B-v2 shapes: of a decode step, of 8192 tokens with both gradients,
// and of the experts of Nemotron-3-Nano-30B-A3B (128, top 6) against one dense product of as many
// rows.
#include <memory>
#include <numeric>

#include "core/ops/grouped_linear.h"
#include "core/ops/linear.h"
#include "tests/bench/device/case.h"

namespace strata::bench {
namespace {

struct Projection {
  const char* name;
  int64_t out, in;
};

// Few rows: several weights in turn, so that none is found in a cache of the chip.
Runs skinny(Rig& rig, int64_t rows, const Projection& p) {
  const int weights = p.out < 100000 ? 4 : 1;
  const Tensor x = rig.random({rows, p.in});
  std::vector<Param> all;
  for (int i = 0; i < weights; ++i)
    all.push_back(rig.param({p.out, p.in}, -0.03, 0.03, Keep::compute, false));
  Runs runs = rig.forward([=, &rig] {
    for (const Param& w : all) linear(rig.cx, x, w);
  });
  runs.repeats = weights;
  return runs;
}

Runs forward(Rig& rig, int64_t rows, const Projection& p) {
  const Tensor x = rig.random({rows, p.in});
  const Param w = rig.param({p.out, p.in}, -0.03, 0.03, Keep::compute, false);
  return rig.forward([=, &rig] { linear(rig.cx, x, w); });
}

// One of the two gradients: the other input is a constant.
Runs backward(Rig& rig, int64_t rows, const Projection& p, bool of_weight) {
  const Tensor x = rig.random({rows, p.in});
  const Param w = rig.param({p.out, p.in}, -0.03, 0.03, Keep::compute, of_weight);
  return rig.backward([=, &rig] { return linear(rig.cx, of_weight ? x : rig.variable(x), w); });
}

// Rows of each expert: uneven as routing leaves them, `rows` together.
std::vector<int32_t> offsets_of(int64_t experts, int64_t rows) {
  const int64_t mean = rows / experts;
  std::vector<int32_t> offsets{0};
  for (int64_t e = 0; e < experts; ++e) {
    const int64_t spread = (37 * e % (experts + 1) - experts / 2) * mean / (3 * experts);
    offsets.push_back(offsets.back() + int32_t(mean + spread));
  }
  offsets.back() = int32_t(rows);
  return offsets;
}

Runs experts(Rig& rig, int64_t rows, int64_t n, const Projection& p) {
  const Tensor x = rig.random({rows, p.in});
  const Param w = rig.param({n, p.out, p.in}, -0.03, 0.03, Keep::compute, false);
  const Tensor offsets = rig.numbers(offsets_of(n, rows));
  return rig.forward([=, &rig] { grouped_linear(rig.cx, x, w, offsets); });
}

}  // namespace

std::vector<Case> matmul_cases(Scale scale, int64_t element) {
  const bool tiny = scale == Scale::tiny;
  std::vector<Projection> projections{{"in_proj", 22656, 4480},
                                      {"out_proj", 4480, 10240},
                                      {"up", 15680, 4480},
                                      {"down", 4480, 15680}};
  Projection head{"lm_head", 131072, 4480};
  std::vector<Projection> expert{{"up", 1856, 2688}, {"down", 2688, 1856}};
  int64_t tokens = 8192, n = 128, top_k = 6;
  if (tiny) projections = {{"in_proj", 24, 16}}, head = {"lm_head", 40, 16};
  if (tiny) expert = {{"up", 24, 16}}, tokens = 32, n = 8, top_k = 2;
  std::vector<Case> cases;
  for (const Projection& p : projections) {
    const Work work = linear_work(tokens, p.out, p.in, element);
    const std::string end = std::string(p.name) + "/" + std::to_string(tokens);
    cases.push_back(
        op_case("matmul_" + end, work, [=](Rig& rig) { return forward(rig, tokens, p); }));
    cases.push_back(op_case("matmul_dx_" + end, work,
                            [=](Rig& rig) { return backward(rig, tokens, p, false); }));
    cases.push_back(op_case("matmul_dw_" + end, work,
                            [=](Rig& rig) { return backward(rig, tokens, p, true); }));
  }
  projections.push_back(head);
  for (const Projection& p : projections)
    for (const int64_t rows : {1, 8, 64})
      cases.push_back(op_case("matmul_" + std::string(p.name) + "/" + std::to_string(rows),
                              linear_work(rows, p.out, p.in, element),
                              [=](Rig& rig) { return skinny(rig, rows, p); }));
  const int64_t rows = tokens * top_k;
  for (const Projection& p : expert) {
    const std::string end = std::string(p.name) + "/" + std::to_string(tokens);
    cases.push_back(op_case("moe_" + end, linear_work(rows, p.out, p.in, element, n),
                            [=](Rig& rig) { return experts(rig, rows, n, p); }));
    cases.push_back(op_case("moe_dense_" + end, linear_work(rows, p.out, p.in, element),
                            [=](Rig& rig) { return forward(rig, rows, p); }));
  }
  return cases;
}

}  // namespace strata::bench
