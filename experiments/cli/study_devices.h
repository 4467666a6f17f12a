// Which devices a study can use, as a process of its own finds them: the study itself holds none.
#pragma once

#include "experiments/ablate/devices.h"
#include "experiments/ablate/expand.h"
#include "experiments/cli/command.h"

namespace strata {

// The devices that the plan's runs may use, with what is free on each; empty when all run on the
// CPU. `cpu_slots`: runs side by side there, where some do. Throws Error (device) with the reason
// where a run would have none, or names one that cannot be used.
std::vector<StudyDevice> study_devices(const StudyPlan& plan, int64_t cpu_slots,
                                       const Session& session);

// From what `strata doctor --json` said: the usable devices, or the reason why there are none.
std::vector<StudyDevice> parse_doctor(const std::string& text, std::string& why);

}  // namespace strata
