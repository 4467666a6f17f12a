// strata check-golden: this build against stored reference results.
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "core/tensor/device.h"
#include "experiments/cli/plugins.h"
#include "experiments/evaluate/check_golden.h"

namespace strata {

void add_check_golden_command(CLI::App& app, Session& session) {
  struct Arguments {
    std::vector<std::string> folders;
    bool strict = false;
  };
  auto arguments = std::make_shared<Arguments>();
  auto* command = app.add_subcommand("check-golden",
                                     "compare models and operators with stored reference results");
  command->add_option("DIR", arguments->folders, "golden folders, or folders of them")->required();
  command->add_flag("--strict", arguments->strict, "skipped checks count as failures");
  command->footer(
      "\nExamples:\n  strata check-golden tests/golden\n"
      "  strata check-golden --json --strict tests/golden/mamba2\n"
      "  strata check-golden --device cuda tests/golden");
  command->callback([&session, arguments] {
    session.action = [&session, arguments] {
      const auto plugins = open_plugins(session);
      return run_check_golden(
          arguments->folders, *plugins,
          {.json = session.json,
           .strict = arguments->strict,
           .device = parse_device(session.device.empty() ? "cpu" : session.device)},
          std::cout);
    };
  });
}

}  // namespace strata
