// The options of every command that takes a config: a file, --set, and shorthands for the keys
// that a command line needs most.
#pragma once

#include <string>
#include <vector>

#include "core/model/config.h"
#include "experiments/cli/command.h"

namespace strata {

struct ConfigArgs {
  std::string file;                  // X.toml, or "" for a command line without a file
  std::vector<Override> shorthands;  // --pattern, --task, --files, --steps, ... as overrides
};

// What a flag such as --steps VALUE sets. `text` values are taken as they stand, others as TOML
// where they are TOML: the reader says what a bad one should have been.
Override shorthand(const std::string& flag, const std::string& key, const std::string& value,
                   bool text);

// Adds the positional FILE and the shorthands to a command; `args` must outlive the parse.
void add_config_options(CLI::App& command, ConfigArgs& args);

// The same as the input of a reader, for who reads it several times. Throws Error for a missing
// file.
ConfigInput config_input(const ConfigArgs& args, const Session& session);

// Reads the file (or nothing), applies the shorthands and then --set, and checks the [task] table
// against the task's own. Throws Error.
Config read_config(const ConfigArgs& args, const Session& session);

// Fills a [task] table's defaults from the task's own table; throws Error as that does.
void fill_task_defaults(TaskConfig& task);

}  // namespace strata
