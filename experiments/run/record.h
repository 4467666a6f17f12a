// record.json: what a run was made with.
#pragma once

#include <string>
#include <vector>

#include "core/io/json.h"
#include "core/model/config.h"
#include "core/tensor/device.h"

namespace strata {

struct PluginRecord;

// Version, commit, compiler, machine, device, command, seed, threads and plugins.
Json make_record(const Config& config, const std::vector<PluginRecord>& plugins,
                 const std::string& command_line);

// What a record says of the device that computes: its name, the versions of driver and CUDA, and
// whether the same run gives the same bits there. Throws Error when it cannot be used.
Json device_record(Device device, bool deterministic);

// Throws Error when the folder's record names a plugin whose file has changed since.
void check_plugins(const std::string& folder, const std::vector<PluginRecord>& plugins);

// The commit of the source tree that `path` lies in, read from .git; "" outside of one.
std::string git_commit(const std::string& path);

// "AMD EPYC 7B13", as the system names it.
std::string cpu_name();

}  // namespace strata
