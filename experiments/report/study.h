// What a study found, as plain data: the terminal table, the HTML page and the CSV files are all
// made from it.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "experiments/ablate/statistics.h"

namespace strata {

// One block of a pattern as it is drawn: its symbol, or its parallel branches.
struct PatternCell {
  std::string symbol;   // "M"
  std::string name;     // "mamba2"
  std::string options;  // "d_state=4"; empty if none
  std::string share;    // weights shared under this name; empty if own
  std::vector<PatternCell> branches;
};

struct CurvePoint {
  int64_t step = 0;
  double value = 0;
};

// One seed of one variant.
struct RunResult {
  uint64_t seed = 0;
  std::string outcome = "ok";  // ok, diverged, crash, killed, oom, timeout ...
  std::string message;         // one sentence where it is not ok
  double metric = 0;           // NaN where there is none
  int64_t steps = 0;
  double seconds = 0;
  double tokens_per_second = 0;  // of training with its evaluations; 0: not known
  int64_t memory_bytes = 0;      // most that it held on its device; 0: not known
  std::string device;            // "cuda:0"
  bool reached_target = false;
  std::vector<CurvePoint> curve;  // the metric on the evaluation set
};

struct VariantResult {
  std::string name, pattern;
  std::vector<PatternCell> cells;
  int64_t parameters = 0;
  std::string settings;  // what differs from the study, such as "train.lr = 0.01"
  std::string expect;    // a bound on the metric, such as ">= 0.99"; empty: none
  bool is_baseline = false;
  std::vector<RunResult> runs;

  // Filled by summarize_study.
  Summary metric, steps, seconds, tokens_per_second;
  int64_t memory_bytes = 0;  // of the run that held most
  Comparison against_baseline;
  int64_t n_ok = 0;
  double success = 0;    // share of all runs that reached the target
  bool expected = true;  // the median keeps `expect`
};

struct StudyResult {
  std::string title;
  std::vector<std::string> claims;  // sentences
  std::string metric = "accuracy";
  bool higher_is_better = true;
  double target = 0;             // 0: none
  double chance = 0, floor = 0;  // 0: none
  std::vector<VariantResult> variants;
  std::vector<std::pair<std::string, std::string>> record;  // command, versions, machine ...
};

// Computes every summary, the comparison with the baseline (the first variant if none is marked)
// and whether expectations hold. Runs whose outcome is not ok count as missing.
void summarize_study(StudyResult& study);

// True when a run says how fast it was and what it held.
bool has_rates(const StudyResult& study);

// True when every variant keeps its `expect` and every run came to an end.
bool study_holds(const StudyResult& study);

// The metric as a reader sees it: "bits per byte".
std::string metric_label(const StudyResult& study);

// True when `value` keeps a bound such as ">= 0.99", "<=0.15", "> 1", "< 2".
// Throws Error for text that is no bound.
bool keeps_bound(double value, const std::string& bound);

}  // namespace strata
