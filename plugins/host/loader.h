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

// Loads the CUDA kernels of a plugin, when it has any.
void load_cuda_half(const PluginFile& file);

// True when layers of the plugin can run on CUDA: libstrata_cuda.so is there, and the plugin's own
// kernels are too.
bool serves_cuda(const PluginFile& file);

// Loads libstrata_cuda.so, which lies beside libstrata.so. Throws Error (device) naming the place
// when it is not there or cannot be loaded.
void load_cuda_library();

}  // namespace strata
