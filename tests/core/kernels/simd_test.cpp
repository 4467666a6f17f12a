#include "core/kernels/simd.h"

#include <doctest/doctest.h>

#include <limits>

namespace simd = strata::simd;

namespace {

// The largest |got - exact| / max(|exact|, floor) over `steps` values from `low` to `high`.
template <class F, class G>
double worst(F got, G exact, double low, double high, double floor = 0, int steps = 200000) {
  double most = 0;
  for (int i = 0; i <= steps; ++i) {
    const float x = float(low + (high - low) * i / steps);
    const double want = exact(double(x)), have = double(got(x));
    if (want == have) continue;
    most = std::max(most, std::abs(have - want) / std::max(std::abs(want), floor));
  }
  return most;
}

constexpr double kUlp = 1.2e-7;
const float kInf = std::numeric_limits<float>::infinity();

}  // namespace

TEST_CASE("float functions are within three units in the last place") {
  const auto f = [](auto g) { return [g](float x) { return g(x); }; };
  CHECK(worst(
            f([](float x) { return simd::exp(x); }), [](double x) { return std::exp(x); }, -87,
            88.7) < 2 * kUlp);
  CHECK(worst(
            f([](float x) { return simd::exp(x); }), [](double x) { return std::exp(x); }, -103,
            -87, 1e-38) < 2 * kUlp);
  CHECK(worst(
            f([](float x) { return simd::log(x); }), [](double x) { return std::log(x); }, 1e-30,
            4) < 2 * kUlp);
  CHECK(worst(
            f([](float x) { return simd::log(x); }), [](double x) { return std::log(x); }, 1e-44,
            1e-37) < 2 * kUlp);
  CHECK(worst(
            f([](float x) { return simd::log(x); }), [](double x) { return std::log(x); }, 1,
            1e30) < 2 * kUlp);
  CHECK(worst(
            f([](float x) { return simd::tanh(x); }), [](double x) { return std::tanh(x); }, -12,
            12) < 3 * kUlp);
  CHECK(worst(
            f([](float x) { return simd::sigmoid(x); }),
            [](double x) { return 1 / (1 + std::exp(-x)); }, -80, 80) < 3 * kUlp);
  CHECK(worst(
            f([](float x) { return simd::softplus(x); }),
            [](double x) { return std::log1p(std::exp(x)); }, -80, 80) < 3 * kUlp);
  CHECK(worst(
            f([](float x) { return simd::silu(x); }),
            [](double x) { return x / (1 + std::exp(-x)); }, -80, 80) < 3 * kUlp);
  CHECK(worst(
            f([](float x) { return simd::erf(x); }), [](double x) { return std::erf(x); }, -6, 6) <
        3 * kUlp);
  // gelu cancels for negative x: its error is measured against x.
  CHECK(worst(
            f([](float x) { return simd::gelu(x); }),
            [](double x) { return 0.5 * x * (1 + std::erf(x * std::sqrt(0.5))); }, -6, 6,
            1) < 3 * kUlp);
}

TEST_CASE("the slopes are the derivatives") {
  for (double x = -6; x < 6; x += 0.37) {
    const double h = 1e-5;
    CHECK(simd::silu_slope(x) ==
          doctest::Approx((simd::silu(x + h) - simd::silu(x - h)) / (2 * h)).epsilon(1e-6));
    CHECK(simd::gelu_slope(x) ==
          doctest::Approx((simd::gelu(x + h) - simd::gelu(x - h)) / (2 * h)).epsilon(1e-6));
    CHECK(double(simd::silu_slope(float(x))) == doctest::Approx(simd::silu_slope(x)).epsilon(1e-5));
  }
}

TEST_CASE("limits of the float functions") {
  CHECK(simd::exp(0.0f) == 1.0f);
  CHECK(simd::exp(-kInf) == 0.0f);
  CHECK(simd::exp(kInf) == kInf);
  CHECK(simd::exp(88.8f) == kInf);
  CHECK(std::isnan(simd::exp(NAN)));
  CHECK(simd::log(1.0f) == 0.0f);
  CHECK(simd::log(0.0f) == -kInf);
  CHECK(simd::log(kInf) == kInf);
  CHECK(std::isnan(simd::log(-1.0f)));
  CHECK(std::isnan(simd::log(NAN)));
  CHECK(simd::tanh(100.0f) == 1.0f);
  CHECK(simd::tanh(-100.0f) == -1.0f);
  CHECK(std::isnan(simd::tanh(NAN)));
  CHECK(simd::softplus(1000.0f) == 1000.0f);
  CHECK(simd::softplus(-1000.0f) == 0.0f);
  CHECK(std::isnan(simd::softplus(NAN)));
  CHECK(simd::erf(100.0f) == 1.0f);
  CHECK(std::isnan(simd::erf(NAN)));
  CHECK(simd::sigmoid(-1000.0f) == 0.0f);
}
