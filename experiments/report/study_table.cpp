#include <algorithm>
#include <cmath>

#include "core/model/plan.h"
#include "experiments/report/page.h"

namespace strata {
namespace {

Tone tone_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::win:
      return Tone::good;
    case Verdict::loss:
      return Tone::bad;
    default:
      return Tone::muted;
  }
}

}  // namespace

std::string memory_text(int64_t bytes) { return bytes > 0 ? format_bytes(size_t(bytes)) : "-"; }

std::string interval_text(const Summary& summary, int digits) {
  if (std::isnan(summary.mean)) return "-";
  if (std::isnan(summary.low)) return fixed_text(summary.mean, digits);
  return fixed_text(summary.mean, digits) + " ± " + fixed_text(summary.high - summary.mean, digits);
}

Table to_table(const StudyResult& study) {
  const bool expectations = std::any_of(study.variants.begin(), study.variants.end(),
                                        [](const VariantResult& v) { return !v.expect.empty(); });
  std::vector<TableColumn> columns{{"pattern"},
                                   {"parameters", true},
                                   {metric_label(study), true},
                                   {"median", true},
                                   {"seeds", true}};
  if (expectations) columns.push_back({"expected"});
  columns.insert(columns.end(), {{"verdict"}, {"steps", true}, {"time", true}});
  const bool rates = has_rates(study);
  if (rates) columns.insert(columns.end(), {{"tokens/s", true}, {"peak memory", true}});
  Table table(std::move(columns));
  for (const VariantResult& v : study.variants) {
    const bool whole = v.n_ok == int64_t(v.runs.size());
    std::vector<TableCell> row{
        {v.name, Tone::strong},
        {with_commas(v.parameters)},
        {interval_text(v.metric)},
        {fixed_text(v.metric.median, 3)},
        {whole ? std::to_string(v.n_ok)
               : std::to_string(v.n_ok) + " of " + std::to_string(v.runs.size()),
         whole ? Tone::plain : Tone::bad}};
    if (expectations)
      row.push_back({v.expect.empty() ? "" : v.expect + (v.expected ? " ✓" : " ✗"),
                     v.expected ? Tone::good : Tone::bad});
    const Verdict verdict = v.against_baseline.verdict;
    row.push_back({name_of(verdict), tone_of(verdict)});
    row.push_back({whole_text(v.steps.mean)});
    row.push_back({duration_text(v.seconds.mean)});
    if (rates) {
      row.push_back({whole_text(v.tokens_per_second.mean)});
      row.push_back({memory_text(v.memory_bytes)});
    }
    table.add(std::move(row));
  }
  return table;
}

}  // namespace strata
