// strata check-layer: the conformance kit on one plugin.
#include <CLI/CLI.hpp>
#include <iostream>

#include "core/io/json.h"
#include "core/model/config.h"
#include "core/tensor/device.h"
#include "experiments/cli/plugins.h"
#include "plugins/kit/kit.h"

namespace strata {
namespace {

struct CheckArgs {
  std::string layer;
  int64_t d_model = 0;
  bool in_process = false;
};

// --set d_state=8 as options of the layer.
Options layer_options(const std::vector<std::string>& sets) {
  Options options;
  for (const std::string& set : sets) {
    const Override o = parse_override(set);
    options[o.key] = parse_option_value(o.value);
  }
  return options;
}

Json to_json(const CheckRow& row) {
  constexpr const char* kVerdicts[] = {"ok", "FAIL", "skipped"};
  Json out = Json::object();
  out.set("check", row.check).set("verdict", kVerdicts[int(row.verdict)]);
  out.set("error", row.error).set("tolerance", row.tolerance).set("note", row.note);
  return out;
}

int check(const Session& session, const CheckArgs& args) {
  const auto plugins = open_plugins(session);
  const bool is_file = args.layer.ends_with(".so") || args.layer.find('/') != std::string::npos;
  const std::string name = is_file ? plugins->add_file(args.layer) : args.layer;
  KitOptions options;
  options.set = layer_options(session.sets);
  options.d_model = args.d_model;
  options.isolate = !args.in_process;
  options.device = parse_device(session.device.empty() ? "cpu" : session.device);
  const auto rows = check_layer(*plugins, name, options, [&](const CheckRow& row) {
    if (!session.json && (!session.quiet || row.verdict == CheckVerdict::fail))
      std::cout << format_row(row) << std::endl;
  });
  if (session.json) {
    Json out = Json::array();
    for (const CheckRow& row : rows) out.push(to_json(row));
    std::cout << out.dump(2) << "\n";
    return all_passed(rows) ? kDone : kFailed;
  }
  int count[3] = {};
  for (const CheckRow& row : rows) ++count[int(row.verdict)];
  std::cout << count[0] << " passed, " << count[1] << " failed, " << count[2] << " skipped\n";
  return all_passed(rows) ? kDone : kFailed;
}

}  // namespace

void add_check_layer_command(CLI::App& app, Session& session) {
  auto* command = app.add_subcommand("check-layer", "prove that a layer keeps its contract");
  auto args = std::make_shared<CheckArgs>();
  command->add_option("layer", args->layer, "name, symbol or FILE.so")->required();
  command->add_option("--d-model", args->d_model, "width; by default the smallest that fits")
      ->check(CLI::Range(int64_t{1}, int64_t{4096}));
  command->add_flag("--in-process", args->in_process, "no child processes, for a debugger");
  command->footer(
      "\nExamples:\n  strata check-layer mamba2 --set d_state=8 --set chunk_size=4\n"
      "  strata check-layer build/gru.so\n  strata check-layer mamba2 --device cuda");
  command->callback(
      [&session, args] { session.action = [&session, args] { return check(session, *args); }; });
}

}  // namespace strata
