#include "experiments/cli/config_args.h"

#include <CLI/CLI.hpp>

#include "core/io/file.h"
#include "core/io/toml.h"
#include "experiments/tasks/task.h"

namespace strata {
namespace {

// A shorthand that takes one value.
void add_value(CLI::App& command, ConfigArgs& args, const char* flag, const char* key, bool text,
               const char* help) {
  command
      .add_option_function<std::string>(
          flag,
          [&args, flag, key, text](const std::string& value) {
            args.shorthands.push_back(shorthand(flag, key, value, text));
          },
          help)
      ->type_name(text ? "TEXT" : "VALUE");
}

}  // namespace

Override shorthand(const std::string& flag, const std::string& key, const std::string& value,
                   bool text) {
  const std::string quoted = to_toml(TomlValue{value});
  if (text) return {key, quoted, flag};
  try {
    parse_toml_value(value, flag);
  } catch (const Error&) {
    return {key, quoted, flag};
  }
  return {key, value, flag};
}

void add_config_options(CLI::App& command, ConfigArgs& args) {
  command.add_option("config", args.file, "a TOML file; everything in it has a default")
      ->type_name("X.toml");
  add_value(command, args, "--pattern", "model.pattern", true, "model.pattern");
  add_value(command, args, "--d-model", "model.d_model", false, "model.d_model");
  add_value(command, args, "--task", "task.name", true, "task.name");
  command
      .add_option_function<std::vector<std::string>>(
          "--files",
          [&args](const std::vector<std::string>& files) {
            TomlList list;
            for (const std::string& file : files) list.push_back({file});
            args.shorthands.push_back(
                {"task.files", to_toml(TomlValue{std::move(list)}), "--files"});
          },
          "task.files: files, folders or globs of the task `text`")
      ->allow_extra_args(false)  // several words are spelled out by app.cpp
      ->type_name("GLOB");
  add_value(command, args, "--steps", "train.steps", false, "train.steps");
  add_value(command, args, "--lr", "train.lr", false, "train.lr");
  add_value(command, args, "--batch-size", "train.batch_size", false, "train.batch_size");
  add_value(command, args, "--seed", "train.seed", false, "train.seed");
  add_value(command, args, "--threads", "train.threads", false, "train.threads");
  add_value(command, args, "--memory-limit", "train.memory_limit", true,
            "train.memory_limit, such as 8GiB");
}

void fill_task_defaults(TaskConfig& task) { resolve_task(task); }

ConfigInput config_input(const ConfigArgs& args, const Session& session) {
  std::vector<Override> overrides = args.shorthands;
  if (!session.device.empty())
    overrides.push_back({"model.device", to_toml(TomlValue{session.device})});
  for (const std::string& set : session.sets) overrides.push_back(parse_override(set));
  const std::string text = args.file.empty() ? "" : read_file(args.file, 1 << 20);
  const std::string origin = args.file.empty() ? "the command line" : args.file;
  return {text, origin, std::move(overrides), fill_task_defaults};
}

Config read_config(const ConfigArgs& args, const Session& session) {
  return read_config(config_input(args, session));
}

}  // namespace strata
