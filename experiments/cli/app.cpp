#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <new>
#include <sstream>

#include "core/contract/error.h"
#include "core/contract/options.h"
#include "experiments/cli/command.h"

namespace strata {
namespace {

constexpr const char* kFooter = R"(
Examples:
  strata ablate configs/experiments/quickstart.toml      a study, its table and its report
  strata run --pattern "M-M*-" --task mqar --steps 500   one model, no file needed
  strata new-layer gru --symbol U && strata help layer mamba2

`strata COMMAND --help` shows more of each; `strata help exit-codes` what a script can rely on.)";

void add_paths_of_environment(std::vector<std::string>& paths) {
  const char* text = std::getenv("STRATA_PLUGIN_PATH");
  std::istringstream in(text ? text : "");
  for (std::string path; std::getline(in, path, ':');) {
    if (!path.empty()) paths.push_back(path);
  }
}

// One sentence on stderr; CLI11 writes some of its messages over several lines.
int complain(std::string text, int code) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  std::cerr << "strata: " << text << "\n";
  return code;
}

std::string join(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) {
    const bool plain =
        !word.empty() && word.find_first_of(" \t\n\"'*?[](){}<>|&;$`\\!#~") == std::string::npos;
    std::string quoted = word;
    for (size_t at = 0; (at = quoted.find('\'', at)) != std::string::npos; at += 4) {
      quoted.replace(at, 1, "'\\''");
    }
    out += (out.empty() ? "" : " ") + (plain ? word : "'" + quoted + "'");
  }
  return out;
}

// A sentence about a first word that is no command; "" when that was not the mistake.
std::string unknown_command(const CLI::App& app) {
  if (!app.get_subcommands().empty() || app.remaining().empty()) return "";
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  const std::string word = app.remaining().front(), near = nearest(word, names);
  return "no command '" + word + "'" + (near.empty() ? "" : "; did you mean " + near + "?");
}

int parse_and_run(const std::vector<std::string>& words) {
  Session session;
  session.command_line = join(words);
  std::error_code unreadable;
  session.executable = std::filesystem::read_symlink("/proc/self/exe", unreadable).string();

  CLI::App app("Strata: hybrid layer stacks from a pattern string, trained, ablated and explained.",
               "strata");
  app.footer(kFooter);
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--plugin-path", session.plugin_paths,
                 "a folder of plugins, or one FILE.so (repeatable; also STRATA_PLUGIN_PATH)")
      ->allow_extra_args(false)
      ->type_name("DIR");
  app.add_option("--set", session.sets,
                 "a config key and its TOML value, such as train.lr=3e-3 (repeatable)")
      ->allow_extra_args(false)
      ->type_name("KEY=VALUE");
  app.add_option("--device", session.device,
                 "where it runs, model.device: cpu, cuda or cuda:NUMBER")
      ->type_name("DEVICE");
  app.add_flag("--json", session.json, "print the result as JSON");
  app.add_flag("--quiet", session.quiet, "print results and errors only");

  add_run_command(app, session);
  add_ablate_command(app, session);
  add_check_layer_command(app, session);
  add_generate_command(app, session);
  add_check_golden_command(app, session);
  add_doctor_command(app, session);
  add_help_command(app, session);
  add_init_command(app, session);
  add_inspect_command(app, session);
  add_layers_command(app, session);
  add_new_layer_command(app, session);
  add_ops_command(app, session);

  std::vector<std::string> arguments(words.rbegin(),
                                     words.rend() - 1);  // CLI11 takes them reversed
  try {
    app.parse(arguments);
  } catch (const CLI::CallForHelp&) {
    CLI::App* chosen = &app;
    while (!chosen->get_subcommands().empty()) chosen = chosen->get_subcommands().front();
    std::cout << chosen->help();
    return kDone;
  } catch (const CLI::ParseError& e) {
    std::string text = e.what();
    for (char& c : text) c = c == '\n' ? ' ' : c;
    if (const std::string word = unknown_command(app); !word.empty()) text = word;
    return complain(text + " (see strata --help)", kBadInput);
  }
  add_paths_of_environment(session.plugin_paths);
  return session.action();
}

}  // namespace

int run_cli(int argc, const char* const* argv) {
  try {
    return parse_and_run({argv, argv + argc});
  } catch (const Error& e) {
    return complain(e.what(), e.kind() == ErrorKind::resource ? kNoResources : kBadInput);
  } catch (const std::bad_alloc&) {
    return complain("memory is exhausted; a smaller batch_size or recompute = \"block\" needs less",
                    kNoResources);
  } catch (const std::exception& e) {
    return complain(std::string("unexpected: ") + e.what() + "; please report it with the command",
                    kFailed);
  }
}

}  // namespace strata
