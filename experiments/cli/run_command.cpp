// strata run: one model, trained and recorded in one folder.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>

#include "core/io/json.h"
#include "core/model/plan.h"
#include "experiments/ablate/estimate.h"
#include "experiments/cli/config_args.h"
#include "experiments/cli/plugins.h"
#include "experiments/report/table.h"
#include "experiments/run/interrupt.h"
#include "experiments/run/run.h"

namespace strata {
namespace {

struct RunArgs {
  ConfigArgs config;
  std::string out, resume = "never";
  bool dry_run = false;
};

constexpr int64_t kTimedSteps = 3;

int dry_run(const Config& config, LayerFactory& plugins, const Session& session) {
  const RunEstimate e = estimate_run(config, plugins, kTimedSteps);
  if (!e.refusal.empty()) throw Error(e.refusal, e.refusal_kind);
  const double seconds = e.seconds_per_step * double(config.train.steps);
  if (session.json) {
    Json json = Json::object();
    json.set("pattern", config.model.pattern).set("parameters", e.parameters);
    Json arenas = Json::object();
    for (const auto& [name, bytes] : e.plan.rows()) arenas.set(name, int64_t(bytes));
    json.set("bytes", e.bytes)
        .set("arenas", std::move(arenas))
        .set("steps", config.train.steps)
        .set("seconds", seconds);
    std::cout << json.dump(2) << "\n";
  } else {
    std::cout << config.model.pattern << "  " << with_commas(e.parameters) << " parameters  "
              << format_bytes(size_t(e.bytes)) << "  " << with_commas(config.train.steps)
              << " steps, at most " << duration_text(seconds) << "\n"
              << e.plan.table() << "\n";
  }
  return kDone;
}

// A folder below runs/ that is not there yet, named after the config's file.
std::string free_folder(const std::string& file) {
  const std::string stem = file.empty() ? "run" : std::filesystem::path(file).stem().string();
  std::string folder = "runs/" + stem;
  for (int i = 2; std::filesystem::exists(folder); ++i) {
    folder = "runs/" + stem + "-" + std::to_string(i);
  }
  return folder;
}

int run(const RunArgs& args, const Session& session) {
  const Config config = read_config(args.config, session);
  require_runnable(config, args.config.file.empty() ? "the command line" : args.config.file);
  const auto plugins = open_plugins(session);
  if (args.dry_run) return dry_run(config, *plugins, session);

  if (args.resume == "auto" && args.out.empty()) {
    throw Error("--resume auto needs --out DIR, the folder of the run that goes on");
  }
  RunSettings settings;
  settings.folder = args.out.empty() ? free_folder(args.config.file) : args.out;
  settings.resume = args.resume == "auto";
  settings.plugins = plugins_of(config.model.pattern, *plugins);
  settings.command_line = session.command_line;
  settings.resume_hint = session.command_line +
                         (args.out.empty() ? " --out " + settings.folder : "") +
                         (settings.resume ? "" : " --resume auto");
  const Interrupt interrupt;
  settings.interrupted = [&] { return interrupt.signal(); };
  settings.style = progress_style(STDERR_FILENO, session.quiet);
  if (!session.quiet) settings.messages = &std::cerr;

  const RunSummary summary = run_training(config, *plugins, settings);
  if (session.json) {
    std::cout << read_json(settings.folder + "/result.json").dump(2) << "\n";
  } else if (!session.quiet) {
    std::cout << summary.outcome << "  " << summary.metric_name << " "
              << fixed_text(summary.metric, 4) << "  " << with_commas(summary.steps) << " steps  "
              << duration_text(summary.seconds) << "  " << with_commas(summary.parameters)
              << " parameters  " << settings.folder << "\n";
  }
  if (!summary.message.empty()) std::cerr << "strata: " << summary.message << "\n";
  return summary.outcome == "ok" ? kDone : kFailed;
}

}  // namespace

void add_run_command(CLI::App& app, Session& session) {
  auto* command = app.add_subcommand("run", "train one model; the result is a run folder");
  auto args = std::make_shared<RunArgs>();
  add_config_options(*command, args->config);
  command->add_option("--out", args->out, "the run's folder (default: a free one below runs/)")
      ->type_name("DIR");
  command->add_option("--resume", args->resume, "auto: go on from the newest checkpoint in --out")
      ->check(CLI::IsMember({"auto", "never"}));
  command->add_flag("--dry-run", args->dry_run, "print parameters, memory and time, train nothing");
  command->footer(R"(
Examples:
  strata run model.toml --out runs/first
  strata run model.toml --out runs/first --resume auto       after Ctrl-C or a crash
  strata run --pattern "M-M*-" --task text --files 'src/**' --steps 200
  strata run model.toml --set train.lr=3e-3 --set layers.M.d_state=32)");
  command->callback(
      [&session, args] { session.action = [&session, args] { return run(*args, session); }; });
}

}  // namespace strata
