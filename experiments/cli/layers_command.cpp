// strata layers: the plugins that are found, and the files that were refused.
#include <CLI/CLI.hpp>
#include <iostream>

#include "core/contract/plugin.h"
#include "core/io/json.h"
#include "experiments/cli/plugins.h"
#include "plugins/host/loader.h"

namespace strata {
namespace {

Json to_json(const PluginFile& p) {
  Json hooks = Json::array();
  for (const auto& [hook, name] : {std::pair{kForward, "forward"},
                                   {kBackward, "backward"},
                                   {kState, "state"},
                                   {kQuantize, "quantize"},
                                   {kAfterStep, "after_step"}}) {
    if (p.own_hooks & hook) hooks.push(name);
  }
  std::string symbols(1, p.symbol);
  for (const PluginAlias& alias : p.aliases) symbols += alias.symbol;
  Json row = Json::object();
  row.set("name", p.name).set("symbols", symbols).set("file", p.path).set("sha256", p.hash);
  row.set("cuda", serves_cuda(p)).set("own_hooks", std::move(hooks));
  return row;
}

}  // namespace

int show_layers(const Registry& plugins, const Session& session) {
  if (!session.json) {
    std::cout << layers_table(plugins);
    return kDone;
  }
  Json rows = Json::array();
  for (const PluginFile& p : plugins.plugins()) rows.push(to_json(p));
  std::cout << rows.dump(2) << "\n";
  for (const auto& [path, why] : plugins.refused()) std::cerr << "refused: " << why << "\n";
  return kDone;
}

void add_layers_command(CLI::App& app, Session& session) {
  auto* command = app.add_subcommand("layers", "list the layer plugins that are found");
  command->footer("\nExamples:\n  strata layers\n  strata layers --plugin-path ~/gru/build --json");
  command->callback([&session] {
    session.action = [&session] { return show_layers(*open_plugins(session), session); };
  });
}

}  // namespace strata
