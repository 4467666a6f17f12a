#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <new>
#include <sstream>

#include "core/contract/error.h"
#include "core/contract/options.h"
#include "core/io/json.h"
#include "core/kernels/cuda_path.h"
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

void choose_cuda_path() {
  const char* text = std::getenv("STRATA_CUDA_PATH");
  const std::string path = text ? text : "best";
  if (path != "best" && path != "portable") {
    throw Error("STRATA_CUDA_PATH must be best or portable, got '" + path + "'");
  }
  set_cuda_path(path == "portable" ? CudaPath::portable : CudaPath::best);
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

// Several words may follow --patterns and --files. Some begin with '-' or stand in brackets, which
// CLI11 takes for options and for lists, so each becomes --patterns=WORD. A word is an option when
// it looks like one: "--", a small letter, and two small letters side by side somewhere.
std::vector<std::string> spell_out(const std::vector<std::string>& words) {
  const auto is_option = [](const std::string& word) {
    const auto small = [](char c) { return std::islower(static_cast<unsigned char>(c)) != 0; };
    const auto both = [&](char a, char b) { return small(a) && small(b); };
    const std::string name = word.substr(0, word.find('='));
    return word == "-h" || (name.starts_with("--") && name.size() > 3 && small(name[2]) &&
                            std::adjacent_find(name.begin(), name.end(), both) != name.end());
  };
  std::vector<std::string> out;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& flag = words[i];
    size_t last = i;
    if (flag == "--patterns" || flag == "--files") {
      while (last + 1 < words.size() && !is_option(words[last + 1])) ++last;
    }
    if (last == i) out.push_back(flag);
    while (i < last) out.push_back(flag + "=" + words[++i]);
  }
  return out;
}

// A sentence about a word that is no command, or about none where one must stand; "" when that was
// not the mistake.
std::string unknown_command(const CLI::App& app) {
  const CLI::App* at = &app;
  while (!at->get_subcommands().empty()) at = at->get_subcommands().front();
  std::vector<std::string> names;
  std::string all;
  for (const CLI::App* command : at->get_subcommands({})) {
    names.push_back(command->get_name());
    all += (all.empty() ? "" : ", ") + command->get_name();
  }
  if (names.empty()) return "";
  const std::string place = at == &app ? "" : at->get_name() + ": ";
  const std::vector<std::string> words = app.remaining(true);
  if (words.empty()) return place + "a subcommand is missing; there are " + all;
  const std::string near = nearest(words.front(), names);
  return place + "no " + (at == &app ? "command '" : "subcommand '") + words.front() + "'" +
         (near.empty() ? "; there are " + all : "; did you mean " + near + "?");
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
                 "where it runs, model.device: cpu, cuda or cuda:NUMBER; a study also takes every "
                 "GPU (cuda) or a list (cuda:0,cuda:1)")
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

  std::vector<std::string> arguments = spell_out({words.begin() + 1, words.end()});
  std::reverse(arguments.begin(), arguments.end());  // as CLI11 takes them
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
  choose_cuda_path();
  return session.action();
}

}  // namespace

void print_files(const std::vector<std::string>& files, const Session& session) {
  if (session.json) {
    Json list = Json::array();
    for (const std::string& file : files) list.push(file);
    std::cout << list.dump(2) << "\n";
    return;
  }
  for (const std::string& file : files) {
    if (!session.quiet) std::cout << file << "\n";
  }
}

int run_cli(int argc, const char* const* argv) {
  try {
    return parse_and_run({argv, argv + argc});
  } catch (const Error& e) {
    return complain(e.what(), e.kind() == ErrorKind::input ? kBadInput : kNoResources);
  } catch (const std::bad_alloc&) {
    return complain("memory is exhausted; a smaller batch_size or recompute = \"block\" needs less",
                    kNoResources);
  } catch (const std::filesystem::filesystem_error& e) {
    return complain(e.path1().string() + ": " + e.code().message(), kBadInput);
  } catch (const std::exception& e) {
    return complain(std::string("unexpected: ") + e.what() + "; please report it with the command",
                    kFailed);
  }
}

}  // namespace strata
