// What a study may claim from a handful of seeds: means with Student's interval, differences paired
// by seed, and a verdict only where the interval of the difference clears zero.
#pragma once

#include <cstdint>
#include <map>
#include <span>

namespace strata {

// The value that a Student t variable with `df` > 0 degrees of freedom stays below with
// probability `p` in (0, 1).
double student_t_quantile(double p, double df);

// Of n values: all are NaN for n = 0; sd and interval are NaN for n = 1, for one value says nothing
// about the spread.
struct Summary {
  int64_t n = 0;
  double mean = 0, median = 0;
  double sd = 0;             // with n - 1
  double low = 0, high = 0;  // interval of the mean
};

// Mean, median and the two-sided Student interval of the mean at `confidence`.
Summary summarize(std::span<const double> values, double confidence = 0.95);

// Share of the values that reach `target` (>= where higher is better, else <=); NaN for no values.
double success_rate(std::span<const double> values, double target, bool higher_is_better);

// Interval of a share of `hits` among n > 0 trials (Wilson 1927), both in [0, 1].
struct Interval {
  double low = 0, high = 1;
};
Interval wilson_interval(int64_t hits, int64_t n, double confidence = 0.95);

enum class Verdict {
  baseline,   // the row that others are compared with
  win,        // better: the interval of the paired difference excludes zero
  tie,        // the interval holds zero
  loss,       // worse
  undecided,  // fewer than two common seeds, or a value that is no number
};
const char* name_of(Verdict verdict);

// Metric by seed.
using BySeed = std::map<uint64_t, double>;

struct Comparison {
  Summary difference;  // variant - baseline over the seeds that both have
  Verdict verdict = Verdict::undecided;
};

// Pairs `variant` with `baseline` seed by seed.
Comparison compare(const BySeed& variant, const BySeed& baseline, bool higher_is_better,
                   double confidence = 0.95);

}  // namespace strata
