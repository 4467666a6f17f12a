// From the [ablate] table to the runs of a study: patterns x grid x variants, each with every seed.
#pragma once

#include <string>
#include <vector>

#include "core/model/config.h"
#include "core/tensor/device.h"

namespace strata {

// One row of the study.
struct Variant {
  std::string name;
  std::vector<Override> overrides;  // what differs from the rest of the file
  std::string expect;               // a bound on the metric; "": none
};

// One run of a study: a variant with a seed.
struct StudyRun {
  size_t variant = 0;
  int64_t seed = 0;
  Config config;         // resolved; its [ablate] is empty
  std::string folder;    // its name below runs/: unique, and the same for the same config
  DeviceChoice devices;  // where it may run; config.model.device is the first of them
  int64_t bytes = 0;     // by its memory plan, for devices; 0: not known
};

struct StudyPlan {
  Config base;
  std::vector<Variant> variants;
  size_t baseline = 0;  // index of a variant
  int64_t jobs = 1;     // runs side by side on the CPU; one without train.threads has cores / jobs
  std::vector<StudyRun> runs;  // seed by seed, so that every variant has a result early
};

// The rows that a study has. Throws Error when two have the same name.
std::vector<Variant> expand_variants(const AblateConfig& ablate);

// Expands and resolves everything. Throws Error for whatever a config reader throws (naming the
// variant), no seeds, a baseline that is no variant, and a bound that is none.
// Runs on devices are left without threads: how many go on at once is known when the devices are.
StudyPlan plan_study(const ConfigInput& input);

// Gives runs without train.threads their share of the cores, for `at_once` runs side by side.
void share_threads(StudyPlan& plan, int64_t at_once);

}  // namespace strata
