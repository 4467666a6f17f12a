#include "experiments/ablate/expand.h"

#include <algorithm>
#include <cctype>
#include <set>
#include <thread>

#include "core/contract/options.h"
#include "core/io/toml.h"
#include "experiments/report/study.h"

namespace strata {
namespace {

constexpr size_t kMaxRuns = 100000;

std::string quoted(const std::string& text) { return to_toml(TomlValue{text}); }

// "cM{d_state=2}" -> "cM_d_state=2": what is safe in a file name.
std::string slug(const std::string& name) {
  std::string out;
  for (char c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) || c == '=' || c == '-' || c == '.')
      out += c;
    else if (!out.empty() && out.back() != '_')
      out += '_';
    if (out.size() >= 48) break;
  }
  while (!out.empty() && (out.back() == '_' || out.back() == '.')) out.pop_back();
  while (!out.empty() && (out.front() == '-' || out.front() == '.')) out.erase(0, 1);
  return out.empty() ? "run" : out;
}

// The last word of a dotted key: "train.lr" -> "lr".
std::string short_key(const std::string& key) { return key.substr(key.rfind('.') + 1); }

// Every row of `rows` with each row of `more` behind it.
std::vector<Variant> product(const std::vector<Variant>& rows, const std::vector<Variant>& more) {
  std::vector<Variant> out;
  for (const Variant& row : rows)
    for (const Variant& extra : more) {
      Variant both = row;
      if (!both.name.empty() && !extra.name.empty()) both.name += ' ';
      both.name += extra.name;
      both.overrides.insert(both.overrides.end(), extra.overrides.begin(), extra.overrides.end());
      if (!extra.expect.empty()) both.expect = extra.expect;
      out.push_back(std::move(both));
      if (out.size() > kMaxRuns)
        throw Error("[ablate] expands to more than " + std::to_string(kMaxRuns) + " variants");
    }
  return out;
}

// Keys that differ by seed, or that say how the study itself goes, are no part of a variant.
void refuse_key(const std::string& key) {
  if (key == "train.seed")
    throw Error("[ablate] varies train.seed, but every variant has the same seeds; use seeds");
  if (key == "ablate" || key.starts_with("ablate."))
    throw Error("[ablate] varies " + key + ", which is a key of the study and not of a run");
}

int64_t cores() { return std::max(1u, std::thread::hardware_concurrency()); }

void share_threads(StudyRun& run, int64_t at_once) {
  int64_t& threads = run.config.train.threads;
  if (threads == 0) threads = std::max<int64_t>(1, cores() / at_once);
}

}  // namespace

void share_threads(StudyPlan& plan, int64_t at_once) {
  for (StudyRun& run : plan.runs) share_threads(run, at_once);
}

std::vector<Variant> expand_variants(const AblateConfig& ablate) {
  std::vector<Variant> rows{{}};
  const auto add = [&](std::vector<Variant> axis) {
    if (!axis.empty()) rows = product(rows, axis);
  };
  std::vector<Variant> axis;
  for (const std::string& pattern : ablate.patterns)
    axis.push_back({pattern, {{"model.pattern", quoted(pattern)}}, ""});
  add(std::move(axis));
  for (const auto& [key, values] : ablate.grid) {
    refuse_key(key);
    axis.clear();
    for (const std::string& value : values)
      axis.push_back({short_key(key) + "=" + value, {{key, value}}, ""});
    add(std::move(axis));
  }
  axis.clear();
  for (const VariantConfig& variant : ablate.variants) {
    for (const Override& item : variant.overrides) refuse_key(item.key);
    axis.push_back({variant.name, variant.overrides, variant.expect});
  }
  add(std::move(axis));

  std::set<std::string> names;
  for (const Variant& row : rows)
    if (!names.insert(row.name).second)
      throw Error("[ablate] has two variants named '" + row.name + "'; names must differ");
  return rows;
}

StudyPlan plan_study(const ConfigInput& input) {
  StudyPlan plan;
  plan.base = read_config(input);
  const AblateConfig& ablate = plan.base.ablate;
  plan.variants = expand_variants(ablate);
  if (plan.variants.size() == 1 && plan.variants[0].name.empty())
    plan.variants[0].name = plan.base.model.pattern;

  if (ablate.seeds.empty())
    throw Error("[ablate] seeds is empty; give a number of seeds or a list");
  if (plan.variants.size() * ablate.seeds.size() > kMaxRuns)
    throw Error("[ablate] expands to more than " + std::to_string(kMaxRuns) + " runs");

  if (!ablate.baseline.empty()) {
    std::vector<std::string> names;
    for (const Variant& variant : plan.variants) names.push_back(variant.name);
    const auto found = std::find(names.begin(), names.end(), ablate.baseline);
    if (found == names.end()) {
      const std::string near = nearest(ablate.baseline, names);
      throw Error("[ablate] baseline is '" + ablate.baseline + "', which is no variant" +
                  (near.empty() ? "" : "; the nearest is '" + near + "'"));
    }
    plan.baseline = size_t(found - names.begin());
  }

  const auto n_runs = int64_t(plan.variants.size() * ablate.seeds.size());
  plan.jobs = std::min(ablate.jobs ? ablate.jobs : cores(), n_runs);
  for (int64_t seed : ablate.seeds)
    for (size_t v = 0; v < plan.variants.size(); ++v) {
      const Variant& variant = plan.variants[v];
      ConfigInput own = input;
      for (const Override& item : variant.overrides)
        own.overrides.push_back({item.key, item.value, input.origin + ", [ablate]"});
      own.overrides.push_back({"train.seed", std::to_string(seed)});
      StudyRun run;
      run.variant = v;
      run.seed = seed;
      try {
        if (!variant.expect.empty()) keeps_bound(0, variant.expect);  // throws if it is no bound
        run.config = read_config(own);
        require_runnable(run.config, input.origin);
        run.devices = parse_devices(run.config.model.device);
      } catch (const Error& error) {
        throw Error("variant '" + variant.name + "': " + error.what(), error.kind());
      }
      run.config.ablate = {};
      if (run.devices.kind == DeviceKind::cpu)
        share_threads(run, plan.jobs);
      else if (!run.devices.indices.empty())
        run.config.model.device = to_string(Device{run.devices.kind, run.devices.indices.front()});
      run.folder = slug(variant.name) + "-s" + std::to_string(seed) + "-" +
                   config_hash(run.config).substr(0, 8);
      plan.runs.push_back(std::move(run));
    }
  return plan;
}

}  // namespace strata
