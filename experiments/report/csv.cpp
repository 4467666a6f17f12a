#include <cmath>
#include <cstdio>

#include "core/io/file.h"
#include "experiments/report/page.h"

namespace strata {
namespace {

// RFC 4180: quotes where a comma, a quote or a line end asks for them.
std::string field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string out = "\"";
  for (char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

std::string field(double value) {
  if (std::isnan(value)) return "";
  char text[40];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

std::string field(int64_t value) { return std::to_string(value); }
std::string field(uint64_t value) { return std::to_string(value); }

template <typename... Fields>
std::string row(const Fields&... fields) {
  std::string out;
  ((out += field(fields) + ","), ...);
  out.back() = '\n';
  return out;
}

}  // namespace

std::string runs_csv(const StudyResult& study) {
  std::string out = "variant,pattern,parameters,seed,outcome," + field(study.metric) +
                    ",reached_target,steps,seconds,message,tokens_per_second,memory_bytes,device\n";
  for (const VariantResult& v : study.variants)
    for (const RunResult& run : v.runs)
      out += row(v.name, v.pattern, v.parameters, run.seed, run.outcome, run.metric,
                 int64_t{run.reached_target}, run.steps, run.seconds, run.message,
                 run.tokens_per_second, run.memory_bytes, run.device);
  return out;
}

std::string table_csv(const StudyResult& study) {
  std::string out =
      "variant,pattern,settings,parameters,metric,n,mean,sd,low95,high95,median,difference,"
      "difference_low95,difference_high95,verdict,success_rate,expect,expectation_kept,"
      "mean_steps,mean_seconds,mean_tokens_per_second,memory_bytes\n";
  for (const VariantResult& v : study.variants) {
    const Summary& d = v.against_baseline.difference;
    out += row(v.name, v.pattern, v.settings, v.parameters, study.metric, v.n_ok, v.metric.mean,
               v.metric.sd, v.metric.low, v.metric.high, v.metric.median, d.mean, d.low, d.high,
               std::string(name_of(v.against_baseline.verdict)), v.success, v.expect,
               int64_t{v.expected}, v.steps.mean, v.seconds.mean, v.tokens_per_second.mean,
               v.memory_bytes);
  }
  return out;
}

std::string curves_csv(const StudyResult& study) {
  std::string out = "variant,seed,step," + field(study.metric) + "\n";
  for (const VariantResult& v : study.variants)
    for (const RunResult& run : v.runs)
      for (const CurvePoint& point : run.curve)
        if (std::isfinite(point.value)) out += row(v.name, run.seed, point.step, point.value);
  return out;
}

std::string write_report(const StudyResult& study, const std::string& folder) {
  make_folders(folder);
  write_file(folder + "/table.csv", table_csv(study));
  write_file(folder + "/runs.csv", runs_csv(study));
  write_file(folder + "/curves.csv", curves_csv(study));
  write_file(folder + "/report.html", to_html(study));
  return folder + "/report.html";
}

}  // namespace strata
