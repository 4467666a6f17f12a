// Loads a plugin whose handshake is done. The only place that sees Boost.DLL.
#pragma once

#include "core/contract/plugin.h"
#include "plugins/host/handshake.h"

namespace strata {

// Loads `file` now and locally, and returns its card. A library stays loaded until the process
// ends; loading a path again returns the same card. Thread-safe. Throws Error when the system's
// loader refuses (its words are quoted), when a kernel is registered twice, or when the file has
// changed since its handshake.
const PluginInfo& load_plugin(const PluginFile& file);

}  // namespace strata
