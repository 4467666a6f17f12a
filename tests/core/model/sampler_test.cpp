#include "core/model/sampler.h"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

using namespace strata;

static std::vector<double> frequencies(const std::vector<double>& logits, SamplerOptions options) {
  std::vector<double> seen(logits.size());
  Random random(5, 1);
  for (int i = 0; i < 20000; ++i) seen[sample(logits, options, random)] += 1 / 20000.0;
  return seen;
}

TEST_CASE("sampling follows the softmax at the given temperature") {
  const std::vector<double> logits{0, std::log(3.0), -INFINITY, std::log(4.0)};
  const auto plain = frequencies(logits, {});
  CHECK(plain[0] == doctest::Approx(1 / 8.0).epsilon(0.06));
  CHECK(plain[1] == doctest::Approx(3 / 8.0).epsilon(0.04));
  CHECK(plain[2] == 0);
  const auto sharp = frequencies(logits, {.temperature = 0.5});
  CHECK(sharp[1] == doctest::Approx(9 / 26.0).epsilon(0.04));
}

TEST_CASE("top-k and top-p keep the largest, ties go to the smaller id") {
  const std::vector<double> logits{1, 1, 1, 0};
  const auto two = frequencies(logits, {.top_k = 2});
  CHECK(two[2] == 0);
  CHECK(two[0] == doctest::Approx(0.5).epsilon(0.03));
  const auto nucleus = frequencies({std::log(0.6), std::log(0.3), std::log(0.1)}, {.top_p = 0.7});
  CHECK(nucleus[2] == 0);
  CHECK(nucleus[0] == doctest::Approx(2 / 3.0).epsilon(0.03));
  Random random(1, 1);
  CHECK(sample(logits, {.temperature = 0}, random) == 0);
}

TEST_CASE("sampler options out of range are refused") {
  CHECK_THROWS_AS(check_sampler({.temperature = -1}), Error);
  CHECK_THROWS_AS(check_sampler({.temperature = NAN}), Error);
  CHECK_THROWS_AS(check_sampler({.top_k = -2}), Error);
  CHECK_THROWS_AS(check_sampler({.top_p = 0}), Error);
}
