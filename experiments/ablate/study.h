// Runs a study: one child process per run, several side by side, what is finished left alone, and
// the report written anew after every run.
#pragma once

#include <functional>
#include <iosfwd>
#include <string>
#include <vector>

#include "experiments/ablate/devices.h"
#include "experiments/ablate/expand.h"
#include "experiments/cli/progress.h"
#include "experiments/report/study.h"

namespace strata {

struct StudySettings {
  std::string out;  // the study's folder; runs lie in out/runs/

  // argv of the child that makes one run in `folder`, where config.toml lies, on `device`.
  std::function<std::vector<std::string>(const StudyRun& run, const std::string& folder,
                                         Device device)>
      command;
  // The pattern of a config as it is drawn; may be empty.
  std::function<std::vector<PatternCell>(const Config& config)> draw;
  // The number of the signal that asks to stop, or 0; may be empty.
  std::function<int()> interrupted;

  int64_t jobs = 1;                  // runs side by side over all devices; 0: what they hold
  std::vector<StudyDevice> devices;  // empty: the CPU
  double timeout_seconds = 0;        // per run; 0: none
  std::vector<std::pair<std::string, std::string>> record;
  ProgressStyle style = ProgressStyle::lines;
  std::ostream* messages = nullptr;  // where progress goes
};

struct StudyOutcome {
  StudyResult result;  // summarised
  std::string page;    // path of report.html
  bool interrupted = false;
  int64_t reused = 0;  // runs that were finished before
};

// Makes every run that has no result yet. A run that ended as ok or diverged is finished; one that
// was killed, crashed or timed out is tried again, from its last checkpoint. When a device is lost,
// what waits goes to the others; what only it could have run is "not run", with the reason.
// Throws Error where the folder cannot be written; what a run does wrong is in its result.
StudyOutcome run_study(const StudyPlan& plan, const StudySettings& settings);

// The study's state from the folders alone.
StudyResult collect_study(const StudyPlan& plan, const StudySettings& settings);

}  // namespace strata
