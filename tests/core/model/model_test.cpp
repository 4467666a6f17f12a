#include "core/model/model.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "tests/core/model/test_layers.h"

using namespace strata;

namespace {

struct Rows {
  std::vector<int32_t> tokens, labels;
  int64_t batch, seq_len;
  Rows(int64_t batch, int64_t seq_len, int32_t vocab) : batch(batch), seq_len(seq_len) {
    for (int64_t i = 0; i < batch * seq_len; ++i) {
      tokens.push_back(int32_t((i * 7 + 3) % vocab));
      labels.push_back(i % 5 == 4 ? kNoLabel : int32_t((i * 5 + 1) % vocab));
    }
  }
  TokenBatch view() {
    return {view_of(tokens.data(), {batch, seq_len}, DType::i32),
            view_of(labels.data(), {batch, seq_len}, DType::i32),
            {}};
  }
};

Config config_for(const std::string& pattern) {
  Config c;
  c.model.pattern = pattern;
  c.model.d_model = 6;
  c.model.vocab_size = 11;
  c.model.dtype = "f64";
  c.model.init_std = 0.5;
  return c;
}

double loss_of(Model& model, Rows& rows) {
  const LossSum sum = model.evaluate(rows.view());
  return sum.loss / double(sum.count);
}

// Every gradient against central differences.
void check_gradients(Config config, const std::vector<std::string>& recompute = {}) {
  testing::TestFactory factory;
  Model model(config, factory);
  model.stack().set_recompute(recompute);
  const MemoryPlan plan = model.plan({2, 5, false, true});
  model.allocate(plan, true);
  model.initialize(3);
  Rows rows(2, 5, 11);
  const double count = loss_of(model, rows) * 0 + 8;
  const LossSum sum = model.train(rows.view(), 1 / count, 0);
  CHECK(sum.count == 8);
  CHECK(model.context().memory().activations.peak() <= plan.activations);
  CHECK(model.context().memory().scratch.peak() <= plan.scratch);
  for (const NamedParam& p : model.params().all()) {
    double* w = p.slot->value.ptr<double>();
    const double* g = p.slot->grad.ptr<double>();
    for (int64_t i = 0; i < p.slot->shape.numel(); i += 3) {
      const double h = 1e-6, kept = w[i];
      w[i] = kept + h;
      const double up = loss_of(model, rows);
      w[i] = kept - h;
      const double down = loss_of(model, rows);
      w[i] = kept;
      CAPTURE(p.name);
      CHECK(g[i] == doctest::Approx((up - down) / (2 * h)).epsilon(1e-5).scale(1e-2));
    }
  }
}

}  // namespace

TEST_CASE("model gradients equal finite differences, plain, own backward, recomputed") {
  check_gradients(config_for("--r-"));
  check_gradients(config_for("--r-"), {"block"});
  check_gradients(config_for("-r-"), {"-"});
}

TEST_CASE("model gradients: shared weights, branches, wiring, tied embeddings, multipliers") {
  check_gradients(config_for("-@A-@A-@A"));
  check_gradients(config_for("-@{A,B}r-@{A,B}-@{A,B}"), {"block"});
  check_gradients(config_for("[-&r-:sum]-[-&-:mean]"));
  check_gradients(config_for("-(-r){in=h+embed, residual=none, out=linear, to=next}@{A,B}-"));
  check_gradients(config_for("-(--){residual=none}-{out_scale=0.5, in_scale=2}"), {"block"});
  Config c = config_for("--");
  c.model.tie_embeddings = true;
  c.model.embedding_multiplier = 3;
  c.model.residual_multiplier = 0.3;
  c.model.logits_multiplier = 0.7;
  c.model.norm = "layernorm_1p";
  check_gradients(c);
  check_gradients(c, {"block"});
}

TEST_CASE("recomputing changes memory, not a bit of the gradients") {
  testing::TestFactory factory;
  Rows rows(2, 5, 11);
  std::vector<std::vector<double>> gradients;
  std::vector<size_t> activations;
  for (const std::vector<std::string>& policy : {std::vector<std::string>{}, {"block"}}) {
    Model model(config_for("------"), factory);
    model.stack().set_recompute(policy);
    const MemoryPlan plan = model.plan({2, 5, false, true});
    activations.push_back(plan.activations);
    model.allocate(plan, true);
    model.initialize(1);
    model.train(rows.view(), 0.125, 0);
    gradients.emplace_back();
    for (const NamedParam& p : model.params().all())
      gradients.back().insert(gradients.back().end(), p.slot->grad.ptr<double>(),
                              p.slot->grad.ptr<double>() + p.slot->shape.numel());
  }
  CHECK(activations[1] < activations[0]);
  CHECK(std::memcmp(gradients[0].data(), gradients[1].data(), gradients[0].size() * 8) == 0);
}
