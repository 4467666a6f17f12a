#include "core/ops/activation.h"
#include "core/ops/arithmetic.h"
#include "tests/core/ops/golden.h"

using namespace strata;
using namespace strata::test;

static const Activation kAll[] = {Activation::relu, Activation::relu2,     Activation::silu,
                                  Activation::gelu, Activation::gelu_tanh, Activation::sigmoid,
                                  Activation::tanh, Activation::softplus,  Activation::exp};

TEST_CASE("arithmetic: gradients under every broadcast") {
  const Shape a{2, 20, 3, 5};
  for (const Shape& b : {Shape{2, 20, 3, 5}, Shape{5}, Shape{3, 5}, Shape{2, 20, 3, 1}, Shape{3, 1},
                         Shape{1}, Shape{20, 3, 5}}) {
    INFO("b ", to_string(b));
    for (auto op : {add, sub, mul})
      gradcheck({a, b}, [&](Context& cx, Inputs& in) { return op(cx, in[0], in[1]); });
  }
  gradcheck({{5}, {4, 5}}, [](Context& cx, Inputs& in) { return add(cx, in[0], in[1]); });
  gradcheck({{4, 5}}, [](Context& cx, Inputs& in) { return mul(cx, in[0], in[0]); });
  gradcheck({{4, 5}}, [](Context& cx, Inputs& in) { return scale(cx, in[0], -2.5, 1); });
  gradcheck({{4, 5}}, [](Context& cx, Inputs& in) { return copy(cx, in[0]); });
}

TEST_CASE("arithmetic: values of a broadcast, and shapes that do not fit") {
  Bench b(DType::f64);
  const Tensor x = b.random({2, 3, 4}, 1), v = b.random({3, 1}, 2);
  const Tensor y = mul(b.cx, x, v);
  for (int64_t i = 0; i < 24; ++i) CHECK(get(y, i) == get(x, i) * get(v, i / 4 % 3));
  CHECK_THROWS_WITH_AS(add(b.cx, x, b.random({3})),
                       doctest::Contains("(3,) cannot be broadcast over (2, 3, 4)"), Error);
  CHECK_THROWS_AS(sub(b.cx, b.random({4}), x), Error);
}

TEST_CASE("activations: gradients, plain and gated") {
  for (Activation act : kAll) {
    INFO(name_of(act));
    CHECK(activation_of(name_of(act), "") == act);
    gradcheck({{3, 37}}, [&](Context& cx, Inputs& in) { return activation(cx, in[0], act); });
    gradcheck({{3, 19}, {3, 19}},
              [&](Context& cx, Inputs& in) { return gated(cx, in[0], in[1], act); });
  }
  CHECK_THROWS_WITH_AS(activation_of("silo", "block 3"), doctest::Contains("did you mean 'silu'?"),
                       Error);
}

TEST_CASE("golden activations") {
  const Golden golden("activations");
  for (Activation act : {Activation::silu, Activation::relu2, Activation::gelu,
                         Activation::gelu_tanh, Activation::softplus, Activation::sigmoid})
    golden.check(std::string(name_of(act)) + ".", {"x"},
                 [&](Context& cx, Inputs& in) { return activation(cx, in[0], act); });
}

TEST_CASE("activations in float: extremes stay finite where they should") {
  Bench b(DType::f32);
  const std::vector<double> x = {-1e30, -200, -90, -88, -1e-8, 0, 1e-8, 88, 88.7, 90, 200, 1e30};
  const Tensor in = b.tensor({int64_t(x.size())}, x);
  for (size_t i = 0; i < x.size(); ++i) {
    const auto n = int64_t(i);
    const auto e = [&](Activation a) { return get(activation(b.cx, in, a), n); };
    const double expected = double(std::exp(float(x[i])));
    if (expected > 1e-37 && std::isfinite(expected))
      CHECK(e(Activation::exp) == doctest::Approx(expected).epsilon(5e-7));
    else
      CHECK((e(Activation::exp) == expected || (x[i] < 0 && e(Activation::exp) < 1e-37)));
    CHECK(e(Activation::tanh) == doctest::Approx(std::tanh(x[i])).epsilon(3e-7));
    CHECK(
        e(Activation::softplus) ==
        doctest::Approx(std::max(x[i], 0.0) + std::log1p(std::exp(-std::abs(x[i])))).epsilon(5e-7));
    CHECK(std::isfinite(e(Activation::silu)));
  }
}
