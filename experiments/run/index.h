// The index of all runs below a folder, as SQLite: built from the run folders, never written by a
// run, and so rebuilt at any time.
//
//   runs(folder, pattern, task, seed, outcome, message, metric_name, metric, reached_target, steps,
//        seconds, parameters, peak_bytes, config_hash, device, tokens_per_second, planned_bytes,
//        used_bytes)
//   config(folder, key, value)         every key of the resolved config, values as TOML
//   points(folder, step, name, value)  every number of metrics.jsonl
#pragma once

#include <cstdint>
#include <string>

namespace strata {

// Finds every folder with a result.json below `root` and writes `root`/index.sqlite whole; returns
// the number of runs. Throws Error where that cannot be done.
int64_t rebuild_index(const std::string& root);

}  // namespace strata
