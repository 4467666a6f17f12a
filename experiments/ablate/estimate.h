// What a run would need, before it is made.
#pragma once

#include <cstdint>
#include <string>

#include "core/model/config.h"
#include "core/model/layer_factory.h"
#include "core/model/plan.h"

namespace strata {

struct RunEstimate {
  int64_t parameters = 0;
  int64_t bytes = 0;            // of the memory plan
  double seconds_per_step = 0;  // measured over a few steps; NaN where not measured
  MemoryPlan plan;
  std::string refusal;  // why the run would not start; "" if it would
  ErrorKind refusal_kind = ErrorKind::input;
};

// Assembles and plans the run; with `steps` > 0 also trains that many steps to time them (the first
// is not counted). Whatever stands against the run is in `refusal`; nothing is thrown.
RunEstimate estimate_run(const Config& config, LayerFactory& factory, int64_t steps);

}  // namespace strata
