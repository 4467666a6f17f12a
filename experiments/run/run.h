// One run in one folder: assemble, train or resume, evaluate, record. Everything a run writes lies
// in its folder (run_folder.h says what).
#pragma once

#include <functional>
#include <iosfwd>
#include <string>
#include <utility>
#include <vector>

#include "core/model/config.h"
#include "core/model/layer_factory.h"
#include "experiments/cli/progress.h"
#include "experiments/run/run_folder.h"

namespace strata {

// A plugin that the run uses; a rerun refuses another hash.
struct PluginRecord {
  std::string name, path, hash;
};

struct RunSettings {
  std::string folder;
  bool resume = false;                // go on from the newest checkpoint of the folder, if any
  std::vector<PluginRecord> plugins;  // those that the pattern uses
  std::string command_line;
  std::string resume_hint;           // how to go on, shown after an interruption
  std::function<int()> interrupted;  // the number of the signal that asks to stop, or 0
  ProgressStyle style = ProgressStyle::lines;
  std::ostream* messages = nullptr;  // where progress goes; null: nowhere
};

// Trains `config` (its pattern and task must be set; train.threads = 0 becomes every core) and
// returns how it ended: ok, diverged or interrupted. Throws Error for what is wrong before the
// first step, for a folder that holds another run, and for a disk that is full; the checkpoints
// that are there stay good.
RunSummary run_training(Config config, LayerFactory& factory, const RunSettings& settings);

}  // namespace strata
