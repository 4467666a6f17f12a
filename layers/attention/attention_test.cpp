#include "core/contract/plugin.h"
#include "plugins/host/registry.h"
#include "tests/core/ops/gradcheck.h"
#include "tests/core/ops/test_pass.h"
#include "tests/support/error_text.h"

using namespace strata;
using namespace strata::test;

namespace {

std::unique_ptr<Layer> make(const Options& options, int64_t d_model = 8,
                            const std::string& symbol = "*") {
  Registry registry;
  Options all = registry.preset(symbol);
  for (const auto& [key, value] : options) all[key] = value;
  return registry.create(symbol, LayerConfig(d_model, 4, all, "block 0 '*' (attention)"));
}

const Options kGrouped = {
    {"n_heads", int64_t{4}}, {"n_kv_heads", int64_t{2}}, {"head_dim", int64_t{6}}};

Options with(Options base, const Options& more) {
  for (const auto& [key, value] : more) base[key] = value;
  return base;
}

std::vector<double> draw(const ParamSlot& p) {
  Random random(3, stream_of(p.name));
  std::vector<double> v(size_t(p.shape.numel()));
  for (double& x : v) x = 0.5 * random.normal();
  return v;
}

Tensor counting(Context& cx, int64_t batch, int64_t seq_len, int64_t from = 0) {
  Tensor p = cx.alloc({batch, seq_len}, DType::i32);
  if (!cx.planning())
    for (int64_t i = 0; i < p.numel(); ++i) p.ptr<int32_t>()[i] = int32_t(from + i % seq_len);
  return p;
}

}  // namespace

TEST_CASE("attention: gradients of the input and of every parameter") {
  for (const Options& options :
       {Options{}, with(kGrouped, {{"rope", true}, {"bias", true}}),
        with(kGrouped, {{"rope", true}, {"rope_fraction", 1.0 / 3}, {"qk_norm", true}}),
        with(kGrouped, {{"window", int64_t{4}}, {"softcap", 3.0}, {"scale", 0.7}}),
        with(kGrouped, {{"qk_norm", true}, {"qk_norm_plus_one", true}, {"causal", false}})}) {
    const auto layer = make(options);
    std::vector<Shape> shapes = {{2, 11, 8}};
    for (const ParamSlot& p : layer->params()) shapes.push_back(p.shape);
    GradcheckOptions o;
    o.tolerance = 1e-6;
    o.pitched = false;
    o.value = [&](size_t n, int64_t i) {
      return n == 0 ? Random(9, 1, uint64_t(i)).normal() : draw(layer->params()[n - 1])[size_t(i)];
    };
    gradcheck(
        shapes,
        [&](Context& cx, Inputs& in) {
          TestPass pass(2);
          pass.set_positions(counting(cx, 2, 11));
          for (size_t n = 0; n < layer->params().size(); ++n) layer->params()[n].value = in[n + 1];
          return layer->forward(cx, in[0], pass);
        },
        o);
  }
}

TEST_CASE("attention: a prompt, then single tokens, equal the full forward, state as declared") {
  for (const std::string symbol : {"*", "w"}) {
    const auto layer = make(
        with(kGrouped, {{"rope", true}, {"qk_norm", true}, {"window", int64_t{9}}}), 8, symbol);
    Bench b(DType::f64);
    for (ParamSlot& p : layer->params()) p.value = b.tensor(p.shape, draw(p));
    const Tensor x = b.random({2, 80, 8});
    TestPass train(2);
    train.set_positions(counting(b.cx, 2, 80));
    const Tensor full = layer->forward(b.cx, x, train);
    TestPass pass(2);
    int64_t done = 0, last = 0;
    for (const int64_t n : {17, 50, 1, 1, 11}) {
      std::vector<double> part;
      for (int64_t row = 0; row < 2; ++row)
        for (int64_t i = 0; i < n * 8; ++i) part.push_back(get(x, (row * 80 + done) * 8 + i));
      pass.begin(n > 1 ? Mode::prefill : Mode::decode, last);
      pass.set_positions(counting(b.cx, 2, n, done));
      const Tensor y = layer->forward(b.cx, b.tensor({2, n, 8}, part), pass);
      for (int64_t row = 0; row < 2; ++row)
        for (int64_t i = 0; i < n * 8; ++i)
          CHECK(get(y, row * n * 8 + i) ==
                doctest::Approx(get(full, (row * 80 + done) * 8 + i)).epsilon(1e-10));
      done += n;
      last = n;
    }
    CHECK(pass.specs.at("k").shape == Shape{12});
    CHECK(pass.specs.at("v").growth == Growth::window_of(9));
  }
}

TEST_CASE("attention: defaults follow d_model, and w has a window") {
  CHECK(make({}, 128)->params()[0].shape == Shape{128, 128});
  CHECK(make({{"n_heads", int64_t{2}}}, 48)->params().size() == 4);
  CHECK(make({{"bias", true}})->params().size() == 8);
  CHECK(make({{"qkv_bias", true}})->params().size() == 7);
  CHECK(Registry().preset("w").contains("window"));
}

TEST_CASE("attention: options that do not fit are named") {
  const auto text = [](const Options& options) { return error_text([&] { make(options); }); };
  CHECK(text({{"n_heads", int64_t{3}}}).find("does not divide d_model = 8") != std::string::npos);
  CHECK(text(with(kGrouped, {{"n_kv_heads", int64_t{3}}}))
            .find("n_kv_heads must divide n_heads = 4") != std::string::npos);
  CHECK(text(with(kGrouped, {{"rope", true}, {"rope_fraction", 0.5}})).find("even number") !=
        std::string::npos);
  CHECK(text({{"window", int64_t{-1}}}).find("must not be negative") != std::string::npos);
}
