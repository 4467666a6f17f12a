// What lies in the folder of one run, and how it is read back.
//
//   config.toml     the resolved config: every key
//   record.json     versions, device and driver, plugin hashes, git hash, seed, threads, command
//   metrics.jsonl   one object per line: {"step": 10, "loss": 2.1, ...}; evaluations are the lines
//                   with "eval_loss" and, where the task has one, "eval_accuracy" ...; on a device
//                   they say the peak of its memory beside the plan
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
  // ok, diverged, interrupted, refused, resources, oom, crash, killed, timeout; device: it could
  // not be used; fault: a kernel failed; lost: the device went away; not run: no device was left.
  std::string outcome = "ok";
  std::string message;      // one sentence where it is not ok
  std::string metric_name;  // "accuracy"
  double metric = 0;        // of the last evaluation; NaN where there is none
  bool higher_is_better = true;
  bool reached_target = false;
  double chance = 0, floor = 0;
  int64_t steps = 0;   // optimizer steps made, over all sittings
  double seconds = 0;  // of training, over all sittings
  int64_t parameters = 0;
  double tokens_per_second = 0;  // of training with its evaluations; 0: not known
  std::string device;            // "cpu", "cuda:0", of the last sitting
  int64_t peak_bytes = 0;        // largest resident size; 0: not known
  int64_t planned_bytes = 0;     // of the memory plan
  // On the CPU the largest resident size less that just before assembly, on a device the most that
  // the run had reserved there.
  int64_t used_bytes = 0;
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
