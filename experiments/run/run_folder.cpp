#include "experiments/run/run_folder.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "core/io/file.h"
#include "core/io/json.h"

namespace strata {
namespace {

constexpr const char* kResult = "/result.json";
constexpr const char* kMetrics = "/metrics.jsonl";

// A parsed line of metrics.jsonl, or nothing where it is broken.
std::optional<Json> parsed(const std::string& line) {
  try {
    Json value = parse_json(line, "metrics.jsonl");
    if (value.is_object()) return value;
  } catch (const Error&) {
  }
  return {};
}

std::optional<double> number(const Json& object, const std::string& key) {
  const Json* value = object.find(key);
  if (!value || !value->is_number()) return {};
  return value->as_double(key);
}

// The step of a line; nothing where it is no whole number.
std::optional<int64_t> step_of(const Json& line) {
  const Json* step = line.find("step");
  try {
    if (step) return step->as_int("step");
  } catch (const Error&) {
  }
  return {};
}

}  // namespace

void write_summary(const std::string& folder, const RunSummary& s) {
  Json json = Json::object();
  json.set("outcome", s.outcome)
      .set("message", s.message)
      .set("metric_name", s.metric_name)
      .set("metric", std::isnan(s.metric) ? Json() : Json(s.metric))
      .set("higher_is_better", s.higher_is_better)
      .set("reached_target", s.reached_target)
      .set("chance", s.chance)
      .set("floor", s.floor)
      .set("steps", s.steps)
      .set("seconds", s.seconds)
      .set("parameters", s.parameters)
      .set("tokens_per_second", s.tokens_per_second)
      .set("device", s.device)
      .set("peak_bytes", s.peak_bytes)
      .set("planned_bytes", s.planned_bytes)
      .set("used_bytes", s.used_bytes)
      .set("config_hash", s.config_hash);
  write_file(folder + kResult, json.dump(2) + "\n");
}

std::optional<RunSummary> read_summary(const std::string& folder) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(folder + kResult, error)) return {};
  try {
    const std::string where = folder + kResult;
    const Json json = read_json(where);
    RunSummary s;
    s.outcome = json.at("outcome", where).as_string(where);
    s.message = json.at("message", where).as_string(where);
    s.metric_name = json.at("metric_name", where).as_string(where);
    const Json& metric = json.at("metric", where);
    s.metric =
        metric.is_null() ? std::numeric_limits<double>::quiet_NaN() : metric.as_double(where);
    s.higher_is_better = json.at("higher_is_better", where).as_bool(where);
    s.reached_target = json.at("reached_target", where).as_bool(where);
    s.chance = json.at("chance", where).as_double(where);
    s.floor = json.at("floor", where).as_double(where);
    s.steps = json.at("steps", where).as_int(where);
    s.seconds = json.at("seconds", where).as_double(where);
    s.parameters = json.at("parameters", where).as_int(where);
    s.peak_bytes = json.at("peak_bytes", where).as_int(where);
    s.config_hash = json.at("config_hash", where).as_string(where);
    if (const Json* planned = json.find("planned_bytes")) s.planned_bytes = planned->as_int(where);
    if (const Json* used = json.find("used_bytes")) s.used_bytes = used->as_int(where);
    if (const Json* rate = json.find("tokens_per_second"))
      s.tokens_per_second = rate->as_double(where);
    if (const Json* device = json.find("device")) s.device = device->as_string(where);
    return s;
  } catch (const Error&) {
    return {};
  }
}

std::vector<CurvePoint> read_curve(const std::string& folder, const std::string& metric) {
  std::vector<CurvePoint> curve;
  std::ifstream file(folder + kMetrics);
  const std::string key = "eval_" + metric;
  for (std::string line; std::getline(file, line);) {
    if (line.find(key) == std::string::npos) continue;
    const auto json = parsed(line);
    if (!json) continue;
    const auto step = step_of(*json);
    const auto value = number(*json, key);
    if (step && value) curve.push_back({*step, *value});
  }
  return curve;
}

int64_t last_step(const std::string& folder) {
  constexpr std::streamoff kTail = 4096;
  std::ifstream file(folder + kMetrics, std::ios::binary | std::ios::ate);
  if (!file) return 0;
  file.seekg(std::max<std::streamoff>(0, std::streamoff(file.tellg()) - kTail));
  int64_t step = 0;
  for (std::string line; std::getline(file, line);)
    if (const auto json = parsed(line)) step = step_of(*json).value_or(step);
  return step;
}

}  // namespace strata
