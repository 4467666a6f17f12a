// strata new-layer: a folder with a layer that builds, passes check-layer and can be studied.
#include <CLI/CLI.hpp>
#include <iostream>

#include "experiments/cli/plugins.h"
#include "plugins/kit/new_layer.h"

namespace strata {
namespace {

int write(const Session& session, const NewLayer& layer) {
  const auto plugins = open_plugins(session);
  for (const PluginFile& p : plugins->plugins()) {
    bool taken = std::string(1, p.symbol) == layer.symbol;
    for (const PluginAlias& a : p.aliases) taken |= std::string(1, a.symbol) == layer.symbol;
    if (taken)
      throw Error("the symbol '" + layer.symbol + "' belongs to " + p.name + " (" + p.path +
                  "); choose another --symbol");
    if (p.name == layer.name)
      throw Error("a layer named '" + layer.name + "' is in " + p.path + "; choose another name");
  }
  const auto files = new_layer(layer);
  print_files(files, session);
  if (session.quiet || session.json) return kDone;
  const std::string folder = layer.folder.empty() ? layer.name : layer.folder;
  std::cout << "\nNext:\n  cmake -S " << folder << " -B " << folder << "/build -DCMAKE_PREFIX_PATH="
            << default_plugin_folder().substr(0, default_plugin_folder().rfind('/'))
            << " && cmake --build " << folder << "/build\n  strata check-layer " << folder
            << "/build/" << layer.name << ".so\n  strata ablate " << folder
            << "/study.toml --plugin-path " << folder << "/build\n";
  return kDone;
}

}  // namespace

void add_new_layer_command(CLI::App& app, Session& session) {
  auto* command = app.add_subcommand("new-layer", "write a layer plugin of your own to start from");
  auto layer = std::make_shared<NewLayer>();
  command->add_option("name", layer->name, "a lower-case word: gru")->required();
  command->add_option("--symbol", layer->symbol, "its letter in patterns")->required();
  command->add_option("--out", layer->folder, "the folder; by default the name");
  command->add_flag("--kernel", layer->kernel, "with an operation and CPU kernels of its own");
  command->footer("\nExample:\n  strata new-layer gru --symbol U --out ~/gru");
  command->callback(
      [&session, layer] { session.action = [&session, layer] { return write(session, *layer); }; });
}

}  // namespace strata
