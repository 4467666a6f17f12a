#include "experiments/report/study.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "core/contract/error.h"

namespace strata {
namespace {

BySeed metric_by_seed(const VariantResult& variant) {
  BySeed values;
  for (const RunResult& run : variant.runs)
    if (run.outcome == "ok") values[run.seed] = run.metric;
  return values;
}

template <typename Get>
Summary summary_of(const VariantResult& variant, Get get) {
  std::vector<double> values;
  for (const RunResult& run : variant.runs)
    if (run.outcome == "ok") values.push_back(get(run));
  return summarize(values);
}

}  // namespace

bool keeps_bound(double value, const std::string& bound) {
  const size_t sign_end = bound.find_first_not_of("<>=");
  const std::string sign = bound.substr(0, sign_end);
  const char* text = sign_end == std::string::npos ? "" : bound.c_str() + sign_end;
  char* end = nullptr;
  const double limit = std::strtod(text, &end);
  if (end == text || std::string(end).find_first_not_of(" ") != std::string::npos)
    throw Error("expect must be a bound such as \">= 0.99\" or \"<= 0.15\", got \"" + bound + "\"");
  if (sign == ">=") return value >= limit;
  if (sign == "<=") return value <= limit;
  if (sign == ">") return value > limit;
  if (sign == "<") return value < limit;
  throw Error("expect must begin with >=, <=, > or <, got \"" + bound + "\"");
}

void summarize_study(StudyResult& study) {
  if (study.variants.empty()) return;
  auto baseline = std::find_if(study.variants.begin(), study.variants.end(),
                               [](const VariantResult& v) { return v.is_baseline; });
  if (baseline == study.variants.end()) baseline = study.variants.begin();
  baseline->is_baseline = true;
  const BySeed reference = metric_by_seed(*baseline);
  for (VariantResult& variant : study.variants) {
    variant.metric = summary_of(variant, [](const RunResult& run) { return run.metric; });
    variant.steps = summary_of(variant, [](const RunResult& run) { return double(run.steps); });
    variant.seconds = summary_of(variant, [](const RunResult& run) { return run.seconds; });
    variant.tokens_per_second =
        summary_of(variant, [](const RunResult& run) { return run.tokens_per_second; });
    for (const RunResult& run : variant.runs)
      variant.memory_bytes = std::max(variant.memory_bytes, run.memory_bytes);
    variant.n_ok = variant.metric.n;
    const auto reached = std::count_if(variant.runs.begin(), variant.runs.end(),
                                       [](const RunResult& run) { return run.reached_target; });
    variant.success = variant.runs.empty() ? 0 : double(reached) / double(variant.runs.size());
    variant.against_baseline = compare(metric_by_seed(variant), reference, study.higher_is_better);
    if (variant.is_baseline) variant.against_baseline.verdict = Verdict::baseline;
    variant.expected = variant.expect.empty() || keeps_bound(variant.metric.median, variant.expect);
  }
}

std::string metric_label(const StudyResult& study) {
  std::string label = study.metric;
  std::replace(label.begin(), label.end(), '_', ' ');
  return label;
}

bool has_rates(const StudyResult& study) {
  for (const VariantResult& variant : study.variants)
    for (const RunResult& run : variant.runs)
      if (run.tokens_per_second > 0) return true;
  return false;
}

bool study_holds(const StudyResult& study) {
  return std::all_of(study.variants.begin(), study.variants.end(), [](const VariantResult& v) {
    return v.expected && v.n_ok == int64_t(v.runs.size());
  });
}

}  // namespace strata
