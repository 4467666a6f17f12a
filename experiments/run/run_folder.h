// What lies in the folder of one run, and how it is read back.
//
//   config.toml     the resolved config: every key
//   record.json     versions, plugin hashes, git hash, seed, threads, command
//   metrics.jsonl   one object per line: {"step": 10, "loss": 2.1, ...}; evaluations are the lines
//                   with "eval_loss" and, where the task has one, "eval_accuracy" ...
//   log.txt         what the run said
//   checkpoints/    step-000000500/ ...
//   result.json     written last: how the run ended (RunSummary)
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "experiments/report/study.h"

namespace strata {

// How a run ended.
struct RunSummary {
  std::string outcome = "ok";  // ok, diverged, interrupted, refused, resources, oom, crash ...
  std::string message;         // one sentence where it is not ok
  std::string metric_name;     // "accuracy"
  double metric = 0;           // of the last evaluation; NaN where there is none
  bool higher_is_better = true;
  bool reached_target = false;
  double chance = 0, floor = 0;
  int64_t steps = 0;   // optimizer steps made, over all sittings
  double seconds = 0;  // of training, over all sittings
  int64_t parameters = 0;
  int64_t peak_bytes = 0;     // largest resident size; 0: not known
  int64_t planned_bytes = 0;  // of the memory plan
  int64_t used_bytes = 0;     // largest resident size less that just before assembly
  std::string config_hash;
};

// Writes result.json whole. Throws Error where the folder cannot be written.
void write_summary(const std::string& folder, const RunSummary& summary);

// The summary of a finished run; nothing where there is none or it cannot be understood.
std::optional<RunSummary> read_summary(const std::string& folder);

// The values of "eval_<metric>" by step from metrics.jsonl; a broken last line is passed over.
std::vector<CurvePoint> read_curve(const std::string& folder, const std::string& metric);

// The step of the last whole line of metrics.jsonl, read from its end; 0 where there is none.
int64_t last_step(const std::string& folder);

}  // namespace strata
