// What wiring means, seen from the stream between blocks.
#include <doctest/doctest.h>

#include <cmath>
#include <map>

#include "core/model/model.h"
#include "tests/core/model/test_layers.h"

using namespace strata;

namespace {

using Hidden = std::map<std::string, std::vector<double>>;

// The stream after each block; equal names of parameters have equal weights in every pattern.
Hidden run(const std::string& pattern) {
  Config c;
  c.model.pattern = pattern;
  c.model.d_model = 6;
  c.model.vocab_size = 11;
  c.model.dtype = "f64";
  c.model.init_std = 0.5;
  testing::TestFactory factory;
  Model model(c, factory);
  model.allocate(model.plan({1, 4, false, false}), false);
  model.initialize(3);
  int32_t tokens[] = {3, 10, 6, 2};
  Hidden hidden;
  model.logits({view_of(tokens, {1, 4}, DType::i32), {}, {}},
               [&](const std::string& name, Tensor h) {
                 const double* values = h.ptr<double>();
                 hidden[name].assign(values, values + h.shape.numel());
               });
  return hidden;
}

double difference(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

}  // namespace

TEST_CASE("wiring: to=next joins the next input and never the stream") {
  const Hidden next = run("-{to=next}-"), none = run("-{out_scale=0}-");
  CHECK(difference(next.at("0"), next.at("embed")) == 0);
  CHECK(difference(next.at("1"), none.at("1")) > 1e-3);
  CHECK(difference(run("-{to=next,out_scale=0}-").at("1"), none.at("1")) < 1e-12);
}

TEST_CASE("wiring: to=chain stands for the stream as the next input") {
  const Hidden chain = run("-{to=chain,out_scale=0}-");
  CHECK(difference(chain.at("0"), chain.at("embed")) == 0);
  CHECK(difference(chain.at("1"), chain.at("embed")) < 1e-12);  // norm and MLP of 0 are 0
  CHECK(difference(run("(--){residual=none,to=next}-").at("1"), chain.at("embed")) == 0);
}

TEST_CASE("wiring: residual=none puts the output in place of the stream") {
  const Hidden hidden = run("-{residual=none,out_scale=0}-{residual=none}");
  for (double x : hidden.at("0")) CHECK(x == 0);
}

TEST_CASE("wiring: scales act behind the norm and behind the layer") {
  const Hidden plain = run("-"), in = run("-{in_scale=2}"), out = run("-{out_scale=2}");
  CHECK(difference(in.at("0"), plain.at("0")) > 1e-3);  // a norm would undo a factor before it
  for (size_t i = 0; i < plain.at("0").size(); ++i) {
    const double e = plain.at("embed")[i];
    CHECK(out.at("0")[i] - e == doctest::Approx(2 * (plain.at("0")[i] - e)));
  }
}

TEST_CASE("wiring: branches see the block's whole input") {
  const Hidden hidden = run("-[-&--]{in=h+embed,norm=layernorm}");
  CHECK(difference(hidden.at("1"), hidden.at("0")) > 1e-3);
}
