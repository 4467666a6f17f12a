#include "experiments/ablate/statistics.h"

#include <algorithm>
#include <boost/math/distributions/normal.hpp>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <limits>
#include <vector>

namespace strata {

double student_t_quantile(double p, double df) {
  return boost::math::quantile(boost::math::students_t(df), p);
}

Summary summarize(std::span<const double> values, double confidence) {
  const double none = std::numeric_limits<double>::quiet_NaN();
  Summary out{int64_t(values.size()), none, none, none, none, none};
  if (values.empty()) return out;
  const double n = double(values.size());
  double sum = 0;
  for (double value : values) sum += value;
  out.mean = sum / n;
  if (!std::isfinite(out.mean)) return out;

  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  const size_t middle = sorted.size() / 2;
  out.median = sorted.size() % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  if (values.size() < 2) return out;

  double squares = 0;
  for (double value : values) squares += (value - out.mean) * (value - out.mean);
  out.sd = std::sqrt(squares / (n - 1));
  const double half = student_t_quantile(0.5 + confidence / 2, n - 1) * out.sd / std::sqrt(n);
  out.low = out.mean - half;
  out.high = out.mean + half;
  return out;
}

double success_rate(std::span<const double> values, double target, bool higher_is_better) {
  const auto reached = std::count_if(values.begin(), values.end(), [&](double value) {
    return higher_is_better ? value >= target : value <= target;
  });
  return double(reached) / double(values.size());
}

Interval wilson_interval(int64_t hits, int64_t n, double confidence) {
  const double z = boost::math::quantile(boost::math::normal(), 0.5 + confidence / 2);
  const double share = double(hits) / double(n), zz = z * z / double(n);
  const double middle = (share + zz / 2) / (1 + zz);
  const double half =
      z / (1 + zz) * std::sqrt(share * (1 - share) / double(n) + zz / (4 * double(n)));
  return {std::max(0.0, middle - half), std::min(1.0, middle + half)};
}

const char* name_of(Verdict verdict) {
  static const char* const kNames[] = {"baseline", "win", "tie", "loss", "undecided"};
  return kNames[int(verdict)];
}

Comparison compare(const BySeed& variant, const BySeed& baseline, bool higher_is_better,
                   double confidence) {
  std::vector<double> differences;
  for (const auto& [seed, value] : variant)
    if (const auto other = baseline.find(seed); other != baseline.end())
      differences.push_back(value - other->second);
  Comparison out;
  out.difference = summarize(differences, confidence);
  const Summary& d = out.difference;
  if (!std::isfinite(d.low))
    out.verdict = Verdict::undecided;
  else if (d.low <= 0 && d.high >= 0)
    out.verdict = Verdict::tie;
  else
    out.verdict = (d.low > 0) == higher_is_better ? Verdict::win : Verdict::loss;
  return out;
}

}  // namespace strata
