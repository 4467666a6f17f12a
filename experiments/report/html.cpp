#include <algorithm>
#include <cmath>
#include <map>

#include "experiments/report/chart.h"
#include "experiments/report/page.h"
#include "experiments/report/style.h"

namespace strata {
namespace {

// The colour class of a block, by kind of mixer; plugins of other people share out the rest.
int colour_of(const PatternCell& cell) {
  static const std::map<std::string, int> kColours{
      {"mamba2", 0}, {"attention", 1},      {"mlp", 2}, {"moe", 3}, {"short_conv", 4},
      {"mamba1", 6}, {"gated_delta_net", 5}};
  if (const auto found = kColours.find(cell.name); found != kColours.end()) return found->second;
  int sum = 0;
  for (char c : cell.name + cell.symbol) sum += static_cast<unsigned char>(c);
  return 5 + sum % 3;
}

std::string cell_html(const PatternCell& cell) {
  if (!cell.branches.empty()) {
    std::string out = "<span class=\"branches\" title=\"parallel branches\">";
    for (const PatternCell& branch : cell.branches) out += cell_html(branch);
    return out + "</span>";
  }
  std::string title = cell.name;
  if (!cell.options.empty()) title += " {" + cell.options + "}";
  if (!cell.share.empty()) title += ", weights shared as " + cell.share;
  return "<span class=\"cell k" + std::to_string(colour_of(cell)) +
         (cell.share.empty() ? "" : " shared") + "\" title=\"" + escape_html(title) + "\">" +
         escape_html(cell.symbol) + "</span>";
}

std::string cells_html(const std::vector<PatternCell>& cells) {
  if (cells.empty()) return "";
  std::string out = cells.size() > 12 ? "<div class=\"cells dense\">" : "<div class=\"cells\">";
  for (const PatternCell& cell : cells) out += cell_html(cell);
  return out + "</div>";
}

void collect(const std::vector<PatternCell>& cells, std::map<std::string, PatternCell>& kinds) {
  for (const PatternCell& cell : cells) {
    if (cell.branches.empty()) kinds.try_emplace(cell.symbol, cell);
    collect(cell.branches, kinds);
  }
}

std::string symbol_legend(const StudyResult& study) {
  std::map<std::string, PatternCell> kinds;
  for (const VariantResult& variant : study.variants) collect(variant.cells, kinds);
  if (kinds.empty()) return "";
  std::string out = "<ul class=\"legend\">";
  for (const auto& [symbol, cell] : kinds) {
    PatternCell plain{cell.symbol, cell.name, "", "", {}};
    out += "<li class=\"dense\">" + cell_html(plain) + escape_html(cell.name) + "</li>";
  }
  return out + "</ul>\n";
}

struct Range {
  double low = 0, high = 1;
};

Range metric_range(const StudyResult& study) {
  if (study.metric == "accuracy") return {};
  Range range{INFINITY, -INFINITY};
  for (const VariantResult& variant : study.variants)
    for (const RunResult& run : variant.runs)
      if (std::isfinite(run.metric)) {
        range.low = std::min(range.low, run.metric);
        range.high = std::max(range.high, run.metric);
      }
  if (!(range.high >= range.low)) return {};
  const double slack = std::max(0.08 * (range.high - range.low), 1e-6);
  return {range.low - slack, range.high + slack};
}

// Seeds as rings, the interval as a whisker, the mean as a dot, over the range of the metric.
std::string interval_svg(const VariantResult& variant, const Range& range) {
  const auto x = [&](double value) {
    const double share = (value - range.low) / (range.high - range.low);
    return fixed_text(8 + 144 * std::clamp(share, 0.0, 1.0), 1);
  };
  std::string out =
      "<svg width=\"160\" height=\"20\" viewBox=\"0 0 160 20\" aria-hidden=\"true\">"
      "<line class=\"track\" x1=\"8\" y1=\"10\" x2=\"152\" y2=\"10\"/>";
  for (const RunResult& run : variant.runs)
    if (run.outcome == "ok" && std::isfinite(run.metric))
      out += "<circle class=\"seed\" r=\"3.5\" cy=\"10\" cx=\"" + x(run.metric) + "\"/>";
  const Summary& m = variant.metric;
  if (std::isfinite(m.low))
    out += "<line class=\"whisker\" y1=\"10\" y2=\"10\" x1=\"" + x(m.low) + "\" x2=\"" + x(m.high) +
           "\"/>";
  if (std::isfinite(m.mean))
    out += "<circle class=\"mean\" r=\"3\" cy=\"10\" cx=\"" + x(m.mean) + "\"/>";
  return out + "</svg>";
}

// The ends of the axis that the intervals below it are drawn on.
std::string scale_html(const Range& range) {
  const auto end = [](double value) {
    return fixed_text(value, value == std::round(value) ? 0 : 2);
  };
  return "<span class=\"scale\"><span>" + end(range.low) + "</span><span>" + end(range.high) +
         "</span></span>";
}

std::string td(const std::string& html, const char* css = "") {
  return "<td" + (*css ? " class=\"" + std::string(css) + "\"" : "") + ">" + html + "</td>";
}

// "≥ 0.99" for ">= 0.99"
std::string bound_text(const std::string& bound) {
  if (bound.starts_with(">=")) return "≥" + bound.substr(2);
  if (bound.starts_with("<=")) return "≤" + bound.substr(2);
  return bound;
}

std::string result_row(const StudyResult& study, const VariantResult& v, bool expectations) {
  const Range range = metric_range(study);
  std::string who = cells_html(v.cells) + "<code class=\"name\">" + escape_html(v.name) + "</code>";
  if (v.pattern != v.name && v.cells.empty())
    who += " <code class=\"sub\">" + escape_html(v.pattern) + "</code>";
  if (!v.settings.empty()) who += "<div class=\"sub\">" + escape_html(v.settings) + "</div>";
  const std::string verdict = name_of(v.against_baseline.verdict);
  std::string judged = "<span class=\"verdict " + verdict + "\">" + verdict + "</span>";
  const Summary& d = v.against_baseline.difference;
  if (!v.is_baseline && std::isfinite(d.low))
    judged += "<div class=\"sub\">" + std::string(d.mean < 0 ? "−" : "+") +
              fixed_text(std::abs(d.mean), 3) + " ± " + fixed_text(d.high - d.mean, 3) + "</div>";
  std::string measured = interval_text(v.metric);
  if (v.metric.n > 1)
    measured += "<div class=\"sub\">median " + fixed_text(v.metric.median, 3) + "</div>";
  std::string seeds = std::to_string(v.n_ok);
  if (v.n_ok != int64_t(v.runs.size()))
    seeds += "<span class=\"missed\"> of " + std::to_string(v.runs.size()) + "</span>";
  std::string row = "<tr>" + td(who, "wrap") + td(with_commas(v.parameters), "n") +
                    td(measured, "n") + td(interval_svg(v, range)) + td(seeds, "n");
  if (expectations) {
    const std::string mark =
        v.expected ? "<span class=\"kept\">✓</span> " : "<span class=\"missed\">✗</span> ";
    row += td(v.expect.empty() ? "" : mark + escape_html(bound_text(v.expect)));
  }
  row += td(judged) + td(whole_text(v.steps.mean), "n") + td(duration_text(v.seconds.mean), "n");
  if (has_rates(study))
    row += td(whole_text(v.tokens_per_second.mean), "n") + td(memory_text(v.memory_bytes), "n");
  return row + "</tr>\n";
}

std::string result_table(const StudyResult& study) {
  const bool expectations = std::any_of(study.variants.begin(), study.variants.end(),
                                        [](const VariantResult& v) { return !v.expect.empty(); });
  std::string out =
      "<div class=\"wide\"><table><thead><tr><th>pattern</th><th class=\"n\">"
      "parameters</th><th class=\"n\">" +
      escape_html(metric_label(study)) + "</th><th>" + scale_html(metric_range(study)) +
      "</th><th class=\"n\">seeds</th>";
  if (expectations) out += "<th>expected</th>";
  out += "<th>verdict</th><th class=\"n\">steps</th><th class=\"n\">time</th>";
  if (has_rates(study)) out += "<th class=\"n\">tokens/s</th><th class=\"n\">peak memory</th>";
  out += "</tr></thead><tbody>\n";
  for (const VariantResult& v : study.variants) out += result_row(study, v, expectations);
  return out + "</tbody></table></div>\n";
}

std::string result_notes(const StudyResult& study) {
  std::string baseline;
  for (const VariantResult& v : study.variants)
    if (v.is_baseline) baseline = v.name;
  std::string out =
      "<p class=\"note\">Mean over seeds ± half of the 95% interval (Student's t); "
      "rings are seeds. A verdict compares with <code>" +
      escape_html(baseline) +
      "</code>, paired by seed: it is a win or a loss only where the 95% interval of "
      "the difference excludes zero.";
  if (!study.higher_is_better) out += " Lower is better.";
  if (study.chance > 0 && study.metric == "accuracy")
    out += " A guess among all answers scores " + fixed_text(study.chance, 4) +
           ", a guess among the values in the example " + fixed_text(study.floor, 4) + ".";
  return out + "</p>\n";
}

std::string curves_section(const StudyResult& study) {
  Chart chart{"learning curves", "optimizer step", metric_label(study), 0, 0, {}, {}};
  if (study.metric == "accuracy") chart.y_max = 1;
  std::string legend = "<ul class=\"legend\">";
  for (const VariantResult& v : study.variants) {
    Series series{v.name, {}};
    for (const RunResult& run : v.runs)
      if (!run.curve.empty()) series.curves.push_back(run.curve);
    const size_t index = chart.series.size();
    legend += "<li><span class=\"swatch s" + std::to_string(index % kSeriesColours) +
              (index / kSeriesColours % 2 ? " dashed" : "") + "\"></span><code>" +
              escape_html(v.name) + "</code></li>";
    chart.series.push_back(std::move(series));
  }
  const bool any = std::any_of(chart.series.begin(), chart.series.end(),
                               [](const Series& s) { return !s.curves.empty(); });
  if (!any) return "";
  if (study.target > 0) chart.references.push_back({"target", study.target});
  if (study.floor > 0 && study.metric == "accuracy")
    chart.references.push_back({"floor", study.floor});
  return "<h2>Learning curves</h2>\n<figure style=\"margin:0\">" + to_svg(chart) + legend +
         "</ul></figure>\n<p class=\"note\">Mean over seeds; the band goes from the lowest to the "
         "highest seed. A run that reached its target stops and is held there.</p>\n";
}

std::string runs_section(const StudyResult& study) {
  std::string out =
      "<h2>Every run</h2>\n<div class=\"wide\"><table class=\"small\"><thead><tr>"
      "<th>pattern</th><th class=\"n\">seed</th><th class=\"n\">" +
      escape_html(metric_label(study)) +
      "</th><th class=\"n\">steps</th><th class=\"n\">time</th><th>outcome</th></tr>"
      "</thead><tbody>\n";
  for (const VariantResult& v : study.variants)
    for (const RunResult& run : v.runs) {
      std::string outcome = run.outcome == "ok"
                                ? (run.reached_target ? "reached the target" : "ran to the end")
                                : "<span class=\"missed\">" + escape_html(run.outcome) + "</span>";
      if (!run.message.empty()) outcome += ": " + escape_html(run.message);
      if (!run.device.empty() && run.device != "cpu") outcome += ", on " + escape_html(run.device);
      out += "<tr>" + td("<code>" + escape_html(v.name) + "</code>") +
             td(std::to_string(run.seed), "n") + td(fixed_text(run.metric, 4), "n") +
             td(with_commas(run.steps), "n") + td(duration_text(run.seconds), "n") +
             td(outcome, "wrap") + "</tr>\n";
    }
  return out + "</tbody></table></div>\n";
}

std::string record_section(const StudyResult& study) {
  if (study.record.empty()) return "";
  std::string out = "<h2>Record</h2>\n<dl>";
  for (const auto& [key, value] : study.record)
    out += "<dt>" + escape_html(key) + "</dt><dd><code>" + escape_html(value) + "</code></dd>\n";
  return out + "</dl>\n";
}

}  // namespace

std::string to_html(const StudyResult& study) {
  std::string out =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>" +
      escape_html(study.title) + "</title>\n<style>" + kReportStyle +
      "</style></head>\n<body>\n<h1>" + escape_html(study.title) + "</h1>\n";
  for (const std::string& claim : study.claims)
    out += "<p class=\"claim\">" + escape_html(claim) + "</p>\n";
  out += "<h2>Result</h2>\n" + result_table(study) + symbol_legend(study) + result_notes(study);
  return out + curves_section(study) + runs_section(study) + record_section(study) +
         "</body></html>\n";
}

}  // namespace strata
