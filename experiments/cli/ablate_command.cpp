// strata ablate: patterns x seeds x any other key, each run in a process of its own.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <set>

#include "core/io/file.h"
#include "core/io/json.h"
#include "core/io/toml.h"
#include "core/model/plan.h"
#include "core/tensor/random.h"
#include "experiments/ablate/estimate.h"
#include "experiments/ablate/study.h"
#include "experiments/cli/command.h"
#include "experiments/cli/config_args.h"
#include "experiments/cli/plugins.h"
#include "experiments/cli/study_devices.h"
#include "experiments/report/page.h"
#include "experiments/run/index.h"
#include "experiments/run/interrupt.h"
#include "experiments/run/record.h"

namespace strata {
namespace {

constexpr const char* kFooter = R"(
Examples:
  strata ablate configs/experiments/quickstart.toml --dry-run
  strata ablate configs/experiments/quickstart.toml --out runs/quickstart
  strata ablate --patterns "M-M-" "M-M*-" --task mqar --seeds 3
  strata ablate study.toml --device cuda --per-device 4     every GPU, four runs on each

A study goes on where it stopped: what is finished is kept, what crashed or was killed is tried
again. Exit code 1: a run failed, or a row missed what it was expected to reach.)";

constexpr int64_t kTimedSteps = 3;  // per variant, in a dry run

struct AblateArgs {
  ConfigArgs config;
  std::string out;
  bool dry_run = false;
};

// The sizes of one variant in a dry run.
struct EstimateRow {
  RunEstimate run;
  int64_t runs = 0;
  double seconds = 0;  // of all its runs, one after the other
};

std::string default_folder(const AblateArgs& args, const StudyPlan& plan) {
  if (!args.config.file.empty())
    return "runs/" + std::filesystem::path(args.config.file).stem().string();
  return "runs/ablate-" + config_hash(plan.base).substr(0, 8);
}

// Throws the first refusal, with the name of its variant.
void require_no_refusal(const StudyPlan& plan, const std::vector<EstimateRow>& rows) {
  for (size_t v = 0; v < rows.size(); ++v) {
    const RunEstimate& run = rows[v].run;
    if (!run.refusal.empty())
      throw Error("variant '" + plan.variants[v].name + "': " + run.refusal, run.refusal_kind);
  }
}

// Also tells the runs how much memory their variant needs.
std::vector<EstimateRow> estimate(StudyPlan& plan, Registry& plugins, int64_t steps) {
  std::vector<EstimateRow> rows(plan.variants.size());
  for (StudyRun& run : plan.runs) {
    EstimateRow& row = rows[run.variant];
    if (row.runs++ == 0) row.run = estimate_run(run.config, plugins, steps);
    run.bytes = row.run.bytes;
    row.seconds += row.run.seconds_per_step * double(run.config.train.steps);
  }
  return rows;
}

// Fewer runs side by side on the CPU where memory is short.
int64_t jobs_that_fit(const StudyPlan& plan) {
  int64_t largest = 1;
  for (const StudyRun& run : plan.runs)
    if (run.devices.kind == DeviceKind::cpu) largest = std::max(largest, run.bytes);
  const auto fit = int64_t(available_memory()) / (largest + (int64_t{64} << 20));
  return std::clamp<int64_t>(fit, 1, plan.jobs);
}

// Where the runs go, and how many at once.
struct Places {
  std::vector<StudyDevice> devices;  // empty: the CPU
  int64_t jobs = 1;                  // as StudySettings has it
  int64_t at_once = 1;               // runs of the largest variant side by side
};

// Also gives the runs on devices their share of the cores.
Places places_of(StudyPlan& plan, const Session& session) {
  Places places;
  places.jobs = places.at_once = jobs_that_fit(plan);
  places.devices = study_devices(plan, places.jobs, session);
  if (places.devices.empty()) return places;
  places.jobs = plan.base.ablate.jobs;
  int64_t largest = 0;
  for (const StudyRun& run : plan.runs) largest = std::max(largest, run.bytes);
  const int64_t room = DevicePool(places.devices, places.jobs).at_once(largest);
  places.at_once = std::min(room, int64_t(plan.runs.size()));
  share_threads(plan, places.at_once);
  return places;
}

int dry_run(StudyPlan& plan, const std::string& out, const Session& session, Registry& plugins) {
  const auto rows = estimate(plan, plugins, kTimedSteps);
  const bool refused = std::any_of(rows.begin(), rows.end(),
                                   [](const EstimateRow& row) { return !row.run.refusal.empty(); });
  const Places places = refused ? Places{} : places_of(plan, session);
  double seconds = 0;
  Json list = Json::array();
  Table table({{"pattern"},
               {"parameters", true},
               {"memory", true},
               {"runs", true},
               {"steps", true},
               {"time a run", true},
               {"settings"}});
  for (size_t v = 0; v < rows.size(); ++v) {
    const EstimateRow& row = rows[v];
    const Variant& variant = plan.variants[v];
    const double each = row.seconds / double(row.runs);
    if (std::isfinite(row.seconds)) seconds += row.seconds;
    std::string settings = row.run.refusal.empty() ? "" : "refused, see below";
    for (const Override& item : variant.overrides)
      if (row.run.refusal.empty() && item.key != "model.pattern")
        settings += (settings.empty() ? "" : ", ") + item.key + " = " + item.value;
    const int64_t steps = plan.runs[v].config.train.steps;
    table.add({{variant.name, Tone::strong},
               {with_commas(row.run.parameters)},
               {format_bytes(size_t(row.run.bytes))},
               {std::to_string(row.runs)},
               {with_commas(steps)},
               {duration_text(each)},
               {settings, row.run.refusal.empty() ? Tone::muted : Tone::bad}});
    Json entry = Json::object();
    entry.set("name", variant.name)
        .set("pattern", plan.runs[v].config.model.pattern)
        .set("parameters", row.run.parameters)
        .set("bytes", row.run.bytes)
        .set("runs", row.runs)
        .set("steps", steps)
        .set("seconds", std::isfinite(each) ? Json(each) : Json())
        .set("refusal", row.run.refusal);
    list.push(std::move(entry));
  }
  // Runs that share a device take turns on it.
  seconds /= double(places.devices.empty() ? places.at_once : int64_t(places.devices.size()));
  if (session.json) {
    Json json = Json::object();
    json.set("out", out)
        .set("jobs", places.at_once)
        .set("seconds", seconds)
        .set("variants", std::move(list));
    std::cout << json.dump(2) << "\n";
  } else {
    table.print(std::cout, shows_colour(STDOUT_FILENO));
    std::cout << "\n  " << plan.runs.size() << " runs, " << places.at_once
              << " side by side, at most " << duration_text(seconds)
              << " (a run that reaches its target ends early)\n  into " << out << "\n";
    for (const StudyDevice& d : places.devices)
      std::cout << "  on " << to_string(d.device) << ": " << d.description << "\n";
  }
  require_no_refusal(plan, rows);
  return kDone;
}

std::vector<std::pair<std::string, std::string>> record(const StudyPlan& plan, const Places& places,
                                                        const Session& session, Registry& plugins) {
  std::vector<std::pair<std::string, std::string>> out{{"command", session.command_line}};
  if (const std::string commit = git_commit(session.executable); !commit.empty())
    out.emplace_back("commit", commit);
  out.emplace_back("compiler", __VERSION__);
  out.emplace_back("machine", cpu_name());
  for (const StudyDevice& d : places.devices)
    out.emplace_back("device " + to_string(d.device), d.description);
  if (!places.devices.empty())
    out.emplace_back("runs side by side", std::to_string(places.at_once));
  out.emplace_back("threads per run", std::to_string(plan.runs.front().config.train.threads));
  std::set<std::string> patterns, named;
  for (const StudyRun& run : plan.runs) patterns.insert(run.config.model.pattern);
  for (const std::string& pattern : patterns)
    for (const PluginRecord& plugin : plugins_of(pattern, plugins))
      if (named.insert(plugin.name).second)
        out.emplace_back("plugin " + plugin.name, plugin.hash.substr(0, 16) + "  " + plugin.path);
  return out;
}

// Another build of a plugin is another run: its hash becomes part of the folder's name, so that an
// author who changes a layer never reads the results of the one before.
void stamp_plugins(StudyPlan& plan, Registry& plugins) {
  for (StudyRun& run : plan.runs) {
    std::string hashes;
    for (const PluginRecord& plugin : plugins_of(run.config.model.pattern, plugins))
      hashes += plugin.hash;
    char text[20];
    std::snprintf(text, sizeof text, "%08x", unsigned(stream_of(hashes)));
    run.folder += text;
  }
}

int run(const AblateArgs& args, const Session& session) {
  StudyPlan plan = plan_study(config_input(args.config, session));
  const std::string out = args.out.empty() ? default_folder(args, plan) : args.out;
  const auto plugins = open_plugins(session);
  if (args.dry_run) return dry_run(plan, out, session, *plugins);

  // Every variant is assembled once before the first is trained: a study that cannot work says so
  // in its first second.
  const auto rows = estimate(plan, *plugins, 0);
  require_no_refusal(plan, rows);
  const Places places = places_of(plan, session);
  stamp_plugins(plan, *plugins);
  const Interrupt interrupt;
  StudySettings settings;
  settings.out = out;
  settings.jobs = places.jobs;
  settings.devices = places.devices;
  settings.timeout_seconds = plan.base.ablate.timeout;
  settings.record = record(plan, places, session, *plugins);
  settings.style = progress_style(STDERR_FILENO, session.quiet);
  settings.messages = &std::cerr;
  settings.interrupted = [&] { return interrupt.signal(); };
  settings.draw = [&](const Config& config) {
    return draw_pattern(config.model.pattern, *plugins);
  };
  settings.command = [&](const StudyRun&, const std::string& folder, Device device) {
    std::vector<std::string> words{
        session.executable, "run", folder + "/config.toml", "--out", folder, "--resume", "auto",
        "--quiet"};
    if (device.kind != DeviceKind::cpu) words.insert(words.end(), {"--device", to_string(device)});
    for (const std::string& word : plugin_arguments(session)) words.push_back(word);
    return words;
  };
  const StudyOutcome outcome = run_study(plan, settings);
  rebuild_index(out);

  if (session.json) {
    std::cout << to_json(outcome.result);
  } else {
    if (!session.quiet) std::cout << "\n";
    to_table(outcome.result).print(std::cout, shows_colour(STDOUT_FILENO));
    std::cout << "\n  report  " << outcome.page << "\n";
  }
  if (outcome.interrupted) {
    std::cerr << "  stopped; the same command goes on from here\n";
    return kFailed;
  }
  return study_holds(outcome.result) ? kDone : kFailed;
}

}  // namespace

void add_ablate_command(CLI::App& app, Session& session) {
  auto* command = app.add_subcommand("ablate", "compare patterns over seeds, with a report");
  auto args = std::make_shared<AblateArgs>();
  add_config_options(*command, args->config);
  command
      ->add_option_function<std::vector<std::string>>(
          "--patterns",
          [args](const std::vector<std::string>& patterns) {
            TomlList list;
            for (const std::string& pattern : patterns) list.push_back({pattern});
            args->config.shorthands.push_back(
                {"ablate.patterns", to_toml(TomlValue{std::move(list)}), "--patterns"});
          },
          "ablate.patterns: the patterns to compare")
      ->allow_extra_args(false)  // several words are spelled out by app.cpp
      ->type_name("TEXT");
  command
      ->add_option_function<std::string>(
          "--seeds",
          [args](const std::string& seeds) {
            args->config.shorthands.push_back(shorthand("--seeds", "ablate.seeds", seeds, false));
          },
          "ablate.seeds: how many, or a list such as [3, 4]")
      ->type_name("N");
  command
      ->add_option_function<std::string>(
          "--jobs",
          [args](const std::string& jobs) {
            args->config.shorthands.push_back(shorthand("--jobs", "ablate.jobs", jobs, false));
          },
          "ablate.jobs: runs side by side")
      ->type_name("N");
  command
      ->add_option_function<std::string>(
          "--per-device",
          [args](const std::string& runs) {
            args->config.shorthands.push_back(
                shorthand("--per-device", "ablate.per_device", runs, false));
          },
          "ablate.per_device: runs that share a GPU, or auto")
      ->type_name("N");
  command->add_option("--out", args->out, "folder of the study; runs/NAME if left out");
  command->add_flag("--dry-run", args->dry_run,
                    "say what would run, with sizes and a time measured over a few steps");
  command->footer(kFooter);
  command->callback(
      [&session, args] { session.action = [&session, args] { return run(*args, session); }; });
}

}  // namespace strata
