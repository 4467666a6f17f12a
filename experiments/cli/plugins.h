// The plugins of a command line.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "experiments/cli/command.h"
#include "experiments/run/run.h"
#include "plugins/host/registry.h"

namespace strata {

struct PatternCell;

// The build's plugins and those of --plugin-path. Throws Error as Registry does.
std::unique_ptr<Registry> open_plugins(const Session& session);

// `strata layers`: the table of plugins, or with --json one object for each and the refused files
// on stderr. Returns the exit code.
int show_layers(const Registry& plugins, const Session& session);

// --plugin-path again, for a child process.
std::vector<std::string> plugin_arguments(const Session& session);

// Name, file and hash of every plugin that the pattern uses. Throws Error for an unbound symbol.
std::vector<PluginRecord> plugins_of(const std::string& pattern, Registry& plugins);

// A pattern as reports draw it, with the plugins' names. Throws Error for an unbound symbol.
std::vector<PatternCell> draw_pattern(const std::string& pattern, Registry& plugins);

}  // namespace strata
