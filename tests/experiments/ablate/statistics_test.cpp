#include "experiments/ablate/statistics.h"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "core/tensor/random.h"

using namespace strata;
using doctest::Approx;

// NIST/SEMATECH e-Handbook of Statistical Methods, table 1.3.6.7.2.
TEST_CASE("Student's quantiles are those of the tables") {
  const struct {
    double p, df, t;
  } kTable[] = {
      {0.975, 1, 12.706}, {0.975, 2, 4.303},  {0.975, 4, 2.776},   {0.975, 9, 2.262},
      {0.975, 30, 2.042}, {0.95, 2, 2.920},   {0.995, 5, 4.032},   {0.999, 3, 10.215},
      {0.5, 7, 0.0},      {0.025, 2, -4.303}, {0.975, 1e6, 1.960},
  };
  for (const auto& row : kTable) CHECK(std::abs(student_t_quantile(row.p, row.df) - row.t) < 6e-4);
}

TEST_CASE("a summary holds mean, median, spread and interval") {
  const std::vector<double> values{0.97, 0.25, 0.84};
  const Summary s = summarize(values);
  CHECK(s.n == 3);
  CHECK(s.mean == Approx(0.686667).epsilon(1e-5));
  CHECK(s.median == 0.84);
  CHECK(s.sd == Approx(0.383710).epsilon(1e-5));
  CHECK(s.high - s.mean == Approx(4.302653 * 0.383710 / std::sqrt(3.0)).epsilon(1e-5));
  CHECK(s.mean - s.low == Approx(s.high - s.mean));
  CHECK(summarize(std::vector{1.0, 2.0, 3.0, 10.0}).median == 2.5);
  CHECK(std::isnan(summarize(std::vector{0.5}).low));
  CHECK(summarize(std::vector{0.5}).mean == 0.5);
  CHECK(std::isnan(summarize({}).mean));
  CHECK(std::isnan(summarize(std::vector{1.0, std::nan("")}).low));
}

TEST_CASE("the interval covers the true mean as often as it says") {
  int covered = 0;
  const int trials = 4000;
  for (int trial = 0; trial < trials; ++trial) {
    Random random(11, uint64_t(trial));
    std::vector<double> values(4);
    for (double& value : values) value = 3 + 2 * random.normal();
    const Summary s = summarize(values);
    covered += s.low <= 3 && 3 <= s.high;
  }
  CHECK(std::abs(double(covered) / trials - 0.95) < 0.015);
}

TEST_CASE("verdicts follow the paired difference") {
  const BySeed base{{0, 0.50}, {1, 0.60}, {2, 0.70}};
  const BySeed better{{0, 0.52}, {1, 0.62}, {2, 0.721}};  // far less than the spread over seeds
  CHECK(compare(better, base, true).verdict == Verdict::win);
  CHECK(compare(better, base, false).verdict == Verdict::loss);
  CHECK(compare(base, better, true).verdict == Verdict::loss);
  CHECK(compare({{0, 0.9}, {1, 0.5}, {2, 0.7}}, base, true).verdict == Verdict::tie);
  CHECK(compare(base, base, true).verdict == Verdict::tie);
  CHECK(compare({{0, 0.9}, {7, 0.9}}, base, true).verdict == Verdict::undecided);
  CHECK(compare({{1, 0.9}, {2, std::nan("")}}, base, true).verdict == Verdict::undecided);
  const Comparison partial = compare({{1, 0.9}, {2, 1.0}, {9, 5.0}}, base, true);
  CHECK(partial.difference.n == 2);
  CHECK(partial.difference.mean == Approx(0.3));
  CHECK(std::string(name_of(Verdict::win)) == "win");
}

TEST_CASE("the success rate counts runs at the target") {
  const std::vector<double> values{0.99, 0.98, 1.0, 0.2};
  CHECK(success_rate(values, 0.98, true) == 0.75);
  CHECK(success_rate(values, 0.5, false) == 0.25);
}
