#include "experiments/ablate/estimate.h"

#include <omp.h>

#include <algorithm>
#include <limits>

#include "core/train/trainer.h"
#include "experiments/run/task_source.h"

namespace strata {

RunEstimate estimate_run(const Config& config, LayerFactory& factory, int64_t steps) {
  RunEstimate out;
  out.seconds_per_step = std::numeric_limits<double>::quiet_NaN();
  try {
    // Workspaces grow with the threads.
    const int64_t threads = config.train.threads;
    omp_set_num_threads(threads > 0 ? int(threads) : omp_get_num_procs());
    const TaskSource source(config.task);
    Config assembled = config;
    if (assembled.model.vocab_size == 0) assembled.model.vocab_size = source.vocab_size();
    Model model(assembled, factory);
    out.parameters = model.params().count();
    out.plan = plan_training(model, source, config.train);
    out.bytes = int64_t(out.plan.total());
    if (steps < 1) return out;
    Trainer trainer(model, source, config.train);
    trainer.step();
    double seconds = 0;
    for (int64_t i = 0; i < steps; ++i) seconds += trainer.step().seconds;
    out.seconds_per_step = seconds / double(steps);
  } catch (const Error& error) {
    out.refusal = error.what();
    out.refusal_kind = error.kind();
  }
  return out;
}

}  // namespace strata
