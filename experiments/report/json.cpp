#include "core/io/json.h"

#include <cmath>

#include "experiments/report/page.h"

namespace strata {
namespace {

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(); }

Json to_json(const Summary& s) {
  return Json::object()
      .set("n", s.n)
      .set("mean", number(s.mean))
      .set("median", number(s.median))
      .set("sd", number(s.sd))
      .set("low95", number(s.low))
      .set("high95", number(s.high));
}

Json to_json(const RunResult& run) {
  return Json::object()
      .set("seed", int64_t(run.seed))
      .set("outcome", run.outcome)
      .set("message", run.message)
      .set("metric", number(run.metric))
      .set("reached_target", run.reached_target)
      .set("steps", run.steps)
      .set("seconds", run.seconds)
      .set("tokens_per_second", run.tokens_per_second)
      .set("memory_bytes", run.memory_bytes)
      .set("device", run.device);
}

}  // namespace

std::string to_json(const StudyResult& study) {
  Json variants = Json::array();
  for (const VariantResult& v : study.variants) {
    Json runs = Json::array();
    for (const RunResult& run : v.runs) runs.push(to_json(run));
    Json row = Json::object();
    row.set("name", v.name)
        .set("pattern", v.pattern)
        .set("settings", v.settings)
        .set("parameters", v.parameters)
        .set("metric", to_json(v.metric))
        .set("difference", to_json(v.against_baseline.difference))
        .set("verdict", name_of(v.against_baseline.verdict))
        .set("success_rate", v.success)
        .set("expect", v.expect)
        .set("expectation_kept", v.expected)
        .set("tokens_per_second", to_json(v.tokens_per_second))
        .set("memory_bytes", v.memory_bytes)
        .set("runs", std::move(runs));
    variants.push(std::move(row));
  }
  Json out = Json::object();
  out.set("title", study.title)
      .set("metric", study.metric)
      .set("higher_is_better", study.higher_is_better)
      .set("target", study.target)
      .set("chance", study.chance)
      .set("in_context_floor", study.floor)
      .set("holds", study_holds(study))
      .set("variants", std::move(variants));
  return out.dump(2) + "\n";
}

}  // namespace strata
