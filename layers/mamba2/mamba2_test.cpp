#include <omp.h>

#include "core/contract/plugin.h"
#include "plugins/host/registry.h"
#include "tests/core/ops/gradcheck.h"
#include "tests/core/ops/test_pass.h"
#include "tests/support/error_text.h"

using namespace strata;
using namespace strata::test;

namespace {

const Options kSmall = {{"n_heads", int64_t{4}},
                        {"head_dim", int64_t{3}},
                        {"n_groups", int64_t{2}},
                        {"d_state", int64_t{5}},
                        {"chunk_size", int64_t{16}}};

Options with(Options base, const Options& more) {
  for (const auto& [key, value] : more) base[key] = value;
  return base;
}

std::unique_ptr<Layer> make(const Options& options, int64_t d_model = 6) {
  return Registry().create("M", LayerConfig(d_model, 4, options, "block 0 'M' (mamba2)"));
}

std::vector<double> draw(const ParamSlot& p, uint64_t seed) {
  Random random(seed, stream_of(p.name));
  std::vector<double> v(size_t(p.shape.numel()));
  for (double& x : v) x = 0.4 * random.normal() + (p.name == "norm.weight" ? 1 : 0);
  return v;
}

void bind(Layer& layer, Bench& bench) {
  for (ParamSlot& p : layer.params()) p.value = bench.tensor(p.shape, draw(p, 3));
}

}  // namespace

TEST_CASE("mamba2: gradients of the input and of every parameter, with documents") {
  for (const Options& options :
       {kSmall, with(kSmall, {{"gated_norm", std::string("norm_first")}, {"bias", true}}),
        with(kSmall,
             {{"gated_norm", std::string("none")}, {"neg_eig", true}, {"conv_bias", false}}),
        with(kSmall, {{"norm_groups", int64_t{1}}, {"dt_limit_min", 0.3}})}) {
    const auto layer = make(options);
    std::vector<Shape> shapes = {{2, 19, 6}};
    for (const ParamSlot& p : layer->params()) shapes.push_back(p.shape);
    GradcheckOptions o;
    o.pitched = false;
    o.tolerance = 1e-6;
    o.f32_tolerance = 5e-4;
    o.value = [&](size_t n, int64_t i) {
      return n == 0 ? Random(9, 1, uint64_t(i)).normal()
                    : draw(layer->params()[n - 1], 3)[size_t(i)];
    };
    gradcheck(
        shapes,
        [&](Context& cx, Inputs& in) {
          TestPass pass(2);
          Tensor ids = cx.alloc({2, 19}, DType::i32);
          if (!cx.planning())
            for (int i = 0; i < 38; ++i) ids.ptr<int32_t>()[i] = (i % 19 + i / 19) / 7;
          pass.set_seq_idx(ids);
          for (size_t n = 0; n < layer->params().size(); ++n) layer->params()[n].value = in[n + 1];
          return layer->forward(cx, in[0], pass);
        },
        o);
  }
}

TEST_CASE("mamba2: a prompt, then single tokens, equal the full forward, documents stand alone") {
  const auto layer = make(with(kSmall, {{"dt_limit_min", 0.2}}));
  Bench b(DType::f64);
  bind(*layer, b);
  const Tensor x = b.random({2, 40, 6}, 1);
  const auto cut = [&](int64_t from, int64_t n) {
    std::vector<double> v;
    for (int64_t row = 0; row < 2; ++row)
      for (int64_t i = 0; i < n * 6; ++i) v.push_back(get(x, (row * 40 + from) * 6 + i));
    return b.tensor({2, n, 6}, v);
  };
  TestPass train(2);
  const Tensor full = layer->forward(b.cx, x, train);
  CHECK(train.specs.at("ssm").shape == Shape{4, 3, 5});

  TestPass pass(2);
  int64_t done = 0;
  for (const int64_t n : {17, 5, 1, 1, 16}) {
    pass.begin(n > 1 ? Mode::prefill : Mode::decode);
    const Tensor y = layer->forward(b.cx, cut(done, n), pass);
    for (int64_t row = 0; row < 2; ++row)
      for (int64_t i = 0; i < n * 6; ++i)
        CHECK(get(y, row * n * 6 + i) ==
              doctest::Approx(get(full, (row * 40 + done) * 6 + i)).epsilon(1e-10));
    done += n;
  }

  TestPass packed(2), alone(2);
  std::vector<int32_t> ids;
  for (int i = 0; i < 80; ++i) ids.push_back(i % 40 < 23 ? 5 : 2);
  packed.set_seq_idx(b.ints({2, 40}, ids));
  const Tensor both = layer->forward(b.cx, x, packed);
  const Tensor second = layer->forward(b.cx, cut(23, 17), alone);
  for (int64_t row = 0; row < 2; ++row)
    for (int64_t i = 0; i < 17 * 6; ++i)
      CHECK(get(both, (row * 40 + 23) * 6 + i) ==
            doctest::Approx(get(second, row * 17 * 6 + i)).epsilon(1e-10));
}

TEST_CASE("mamba2: parameters have the names and shapes of checkpoints") {
  const auto layer = make(with(kSmall, {{"bias", true}}), 12);
  std::map<std::string, Shape> found;
  for (const ParamSlot& p : layer->params()) found[p.name] = p.shape;
  CHECK(found.size() == 10);
  CHECK(found["in_proj"] == Shape{2 * 12 + 2 * 2 * 5 + 4, 12});
  CHECK(found["in_proj.bias"] == Shape{2 * 12 + 2 * 2 * 5 + 4});
  CHECK(found["conv1d.weight"] == Shape{12 + 20, 1, 4});
  CHECK(found["A_log"] == Shape{4});
  CHECK(found["norm.weight"] == Shape{12});
  CHECK(found["out_proj"] == Shape{12, 12});
  for (const ParamSlot& p : layer->params())
    CHECK(layer->quantize(p).quantize == (p.name == "in_proj" || p.name == "out_proj"));
}

TEST_CASE("mamba2: the initial step sizes and decays lie in their ranges") {
  const auto layer = make({}, 256);
  for (const ParamSlot& p : layer->params()) {
    if (p.name != "dt_bias" && p.name != "A_log") continue;
    Random random(1, stream_of(p.name));
    for (int i = 0; i < 500; ++i) {
      const double v = p.options.init.draw(random);
      if (p.name == "A_log") {
        CHECK(std::exp(v) >= 1);
        CHECK(std::exp(v) <= 16);
      } else {
        CHECK(std::log1p(std::exp(v)) >= 0.000999);
        CHECK(std::log1p(std::exp(v)) <= 0.1001);
      }
    }
  }
}

TEST_CASE("mamba2: options that cannot be are refused in one sentence") {
  const auto refusal = [](const Options& options) {
    return error_text([&] { make(with(kSmall, options)); });
  };
  CHECK(refusal({{"n_groups", int64_t{3}}}).find("n_heads must be a multiple of n_groups") !=
        std::string::npos);
  CHECK(refusal({{"gated_norm", std::string("both")}}).find("gate_first") != std::string::npos);
  CHECK(refusal({{"norm_groups", int64_t{5}}}).find("norm_groups must divide") !=
        std::string::npos);
  CHECK(refusal({{"dt_limit_min", 0.5}, {"dt_limit_max", 0.1}}).find("dt_limit") !=
        std::string::npos);
  CHECK(refusal({{"d_state", int64_t{0}}}).find("d_state") != std::string::npos);
}
