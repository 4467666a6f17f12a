// The parts of the command line: each command is one file that adds itself to the application.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace strata {

// What every command is told, and the work that was chosen.
struct Session {
  std::vector<std::string> plugin_paths;  // --plugin-path, then STRATA_PLUGIN_PATH
  std::vector<std::string> sets;          // --set, in order
  std::string device;                     // --device: "" leaves it to the config
  bool json = false, quiet = false;
  std::string command_line;     // as typed, for records
  std::string executable;       // path of this program, for child processes
  std::function<int()> action;  // set by the command that was typed; returns the exit code
};

// Exit codes of every command.
enum ExitCode { kDone = 0, kFailed = 1, kBadInput = 2, kNoResources = 3 };

// The files that a command wrote: one line each, a JSON list, or nothing with --quiet.
void print_files(const std::vector<std::string>& files, const Session& session);

// Runs one command line. Every mistake becomes one sentence on stderr; nothing is thrown.
int run_cli(int argc, const char* const* argv);

void add_run_command(CLI::App& app, Session& session);
void add_ablate_command(CLI::App& app, Session& session);
void add_check_layer_command(CLI::App& app, Session& session);
void add_generate_command(CLI::App& app, Session& session);
void add_check_golden_command(CLI::App& app, Session& session);
void add_doctor_command(CLI::App& app, Session& session);
void add_help_command(CLI::App& app, Session& session);
void add_init_command(CLI::App& app, Session& session);
void add_inspect_command(CLI::App& app, Session& session);
void add_layers_command(CLI::App& app, Session& session);
void add_new_layer_command(CLI::App& app, Session& session);
void add_ops_command(CLI::App& app, Session& session);

}  // namespace strata
