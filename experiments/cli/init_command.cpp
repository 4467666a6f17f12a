// strata init: a config with every key, its default and its meaning.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>

#include "core/io/file.h"
#include "core/model/config.h"
#include "experiments/cli/command.h"
#include "experiments/cli/config_args.h"

namespace strata {

void add_init_command(CLI::App& app, Session& session) {
  auto* command = app.add_subcommand("init", "write a commented config, NAME.toml");
  auto name = std::make_shared<std::string>();
  auto force = std::make_shared<bool>(false);
  command->add_option("name", *name, "of the file, with or without .toml")->required();
  command->add_flag("--force", *force, "replace a file that is there");
  command->footer(
      "\nExample:\n  strata init first --set model.pattern=M-M*- && strata run first.toml");
  command->callback([&session, name, force] {
    session.action = [&session, name, force] {
      const std::string path = name->ends_with(".toml") ? *name : *name + ".toml";
      if (std::filesystem::exists(path) && !*force) {
        throw Error(path + ": is there already; choose another name or --force");
      }
      ConfigInput input;
      input.origin = "strata init";
      input.check_task = fill_task_defaults;
      input.overrides = {{"model.pattern", "\"M-M*-\""}, {"task.name", "\"mqar\""}};
      for (const std::string& set : session.sets) input.overrides.push_back(parse_override(set));
      write_file(path, "# strata run " + path + "\n" + to_toml(read_config(input), true));
      print_files({path}, session);
      return kDone;
    };
  });
}

}  // namespace strata
