// What layers say to one another and to the host: published tensors and pages, auxiliary losses,
// counts for after_step, and errors that name their place.
#include <doctest/doctest.h>

#include <cmath>

#include "core/model/model.h"
#include "tests/core/model/test_layers.h"

using namespace strata;
using testing::TestFactory;
using testing::TinyPublish;

namespace {

constexpr int64_t kVocab = 11;

Config config_for(const std::string& pattern) {
  Config c;
  c.model.pattern = pattern;
  c.model.d_model = 6;
  c.model.vocab_size = kVocab;
  c.model.dtype = "f64";
  c.model.init_std = 0.5;
  return c;
}

std::vector<int32_t> ids(int64_t n, int factor) {
  std::vector<int32_t> v;
  for (int64_t i = 0; i < n; ++i) v.push_back(int32_t((i * factor + 3) % kVocab));
  return v;
}

// One training call over 2 rows of 5 tokens, with its gradients.
struct Trained {
  explicit Trained(const std::string& pattern, const std::vector<std::string>& recompute = {})
      : model(config_for(pattern), factory) {
    model.stack().set_recompute(recompute);
    model.allocate(model.plan({2, 5, false, true}), true);
    model.initialize(3);
    sum = run();
  }
  LossSum run() { return model.train(batch(), 0.1, 0); }
  double loss() {  // with the auxiliary losses, at the present parameters
    const std::vector<double> kept = gradients();
    const LossSum s = run();
    return 0.1 * s.loss + s.aux;
  }
  TokenBatch batch() {
    return {
        view_of(tokens.data(), {2, 5}, DType::i32), view_of(labels.data(), {2, 5}, DType::i32), {}};
  }
  std::vector<double> gradients() {
    std::vector<double> all;
    for (const NamedParam& p : model.params().all())
      all.insert(all.end(), p.slot->grad.ptr<double>(),
                 p.slot->grad.ptr<double>() + p.slot->shape.numel());
    return all;
  }

  TestFactory factory;
  Model model;
  std::vector<int32_t> tokens = ids(10, 7), labels = ids(10, 5);
  LossSum sum;
};

std::string error_of(const std::string& pattern, int64_t seq_len = 5) {
  try {
    TestFactory factory;
    Model model(config_for(pattern), factory);
    model.plan({1, seq_len, false, true});
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE(
    "published tensors and auxiliary losses: gradients equal finite differences, recomputed or "
    "not") {
  for (const char* pattern : {"-p-f", "pff-p", "p@A-fp@A"})
    for (const std::vector<std::string>& recompute :
         {std::vector<std::string>{}, {"block"}, {"p"}, {"f"}}) {
      CAPTURE(pattern);
      Trained t(pattern, recompute);
      const std::vector<double> gradients = t.gradients();
      size_t at = 0;
      for (const NamedParam& p : t.model.params().all()) {
        CAPTURE(p.name);
        double* w = p.slot->value.ptr<double>();
        for (int64_t i = 0; i < p.slot->shape.numel(); ++i, ++at) {
          if (i % 5) continue;
          const double kept = w[i];
          w[i] = kept + 1e-6;
          const double up = t.loss();
          w[i] = kept - 1e-6;
          const double down = t.loss();
          w[i] = kept;
          CHECK(gradients[at] == doctest::Approx((up - down) / 2e-6).epsilon(1e-5).scale(1e-2));
        }
      }
    }
}

TEST_CASE("auxiliary losses are the same when blocks are computed again") {
  Trained plain("p-p-"), again("p-p-", {"block"});
  CHECK(plain.sum.aux > 1e-3);
  CHECK(again.sum.aux == plain.sum.aux);
  CHECK(again.gradients() == plain.gradients());
}

TEST_CASE("a published input is the same with and without a tape") {
  for (const char* pattern :
       {"p{own_input=true}f", "-p{own_input=true}--f", "--p{own_input=true}-f-"}) {
    CAPTURE(pattern);
    Trained t(pattern);
    CHECK(t.model.evaluate(t.batch()).loss == doctest::Approx(t.sum.loss).epsilon(1e-12));
  }
}

TEST_CASE("after_step runs once a step with counts over microbatches and call sites") {
  for (const std::vector<std::string>& recompute : {std::vector<std::string>{}, {"block"}}) {
    Trained t("p@A-p@Ap", recompute);  // one microbatch has run
    t.run();
    t.model.after_step(true);
    const auto counted = [&](size_t site) {
      return static_cast<TinyPublish&>(*t.model.stack().sites()[site]->layer).counted;
    };
    CHECK(counted(0) == std::vector<double>{40});  // 2 sites, 2 microbatches of 10 rows
    CHECK(counted(3) == std::vector<double>{20});
    t.run();
    t.model.after_step(false);  // a skipped step
    t.run();
    t.model.after_step(true);
    CHECK(counted(3) == std::vector<double>{20, 10});
  }
}

TEST_CASE(
    "a state that is the same as a published one owns no pages, and decodes like the forward") {
  TestFactory factory;
  Model model(config_for("K-S-S"), factory), alone(config_for("K--"), factory);
  REQUIRE(model.cache_layout().groups.size() == 1);
  CHECK(model.cache_layout().groups[0].page_bytes == alone.cache_layout().groups[0].page_bytes);
  CHECK(model.cache_layout().token_bytes() == alone.cache_layout().token_bytes());
  model.allocate(model.plan({1, 80, false, false}), false);
  model.initialize(2);
  std::vector<int32_t> tokens = ids(80, 7);
  const Tensor all = view_of(tokens.data(), {1, 80}, DType::i32);
  const Tensor full = model.logits({all, all, {}});
  const std::vector<double> expected(full.ptr<double>(), full.ptr<double>() + 80 * kVocab);
  Cache cache = model.make_cache({.sequences = 1, .tokens = 128});
  const int id = cache.open();
  double worst = 0;
  for (int64_t t = 0; t < 80;) {
    const int64_t n = t == 0 ? 60 : 1;
    const Tensor part = view_of(tokens.data() + t, {1, n}, DType::i32);
    const Tensor logits = model.extend(cache, std::span(&id, 1), part, true);
    for (int64_t i = 0; i < n * kVocab; ++i)
      worst = std::max(worst, std::abs(logits.ptr<double>()[i] - expected[size_t(t * kVocab + i)]));
    t += n;
  }
  CHECK(worst < 1e-12);
  CHECK(error_of("S").find("no earlier block publishes") != std::string::npos);
}

TEST_CASE("what a layer throws names its block, symbol and plugin") {
  CHECK(error_of("-p", 13) == "block 1 'p' (own): deque");
  CHECK(error_of("-p{angry=true}") == "block 1 'p' (own): the constructor throws");
  CHECK(error_of("-[-&p]", 13).find("block 1") != std::string::npos);
  CHECK(error_of("-f").find("block 1 'f' (own): no earlier block publishes 'middle'") == 0);
}

TEST_CASE("nothing but the stream crosses a pipeline boundary") {
  CHECK(error_of("p-f|-") == "no error");
  CHECK(error_of("p-|f").find("block 2 'f' (own): 'middle' is published in pipeline stage 0 and "
                              "read in stage 1") == 0);
  CHECK(error_of("-|-{in=h+embed}").find("'embed' is published in pipeline stage 0") !=
        std::string::npos);
}
