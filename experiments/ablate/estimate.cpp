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
    const TaskSource source(config.task);
    Config assembled = config;
    if (assembled.model.vocab_size == 0) assembled.model.vocab_size = source.vocab_size();
    Model model(assembled, factory);
    out.parameters = model.params().count();
    const int64_t microbatch =
        config.train.batch_size / std::max<int64_t>(1, config.train.accumulate);
    model.stack().set_recompute(config.train.recompute);
    out.bytes =
        int64_t(model.plan({microbatch, source.train_seq_len(), source.documents(), true}).total());
    if (steps < 1) return out;
    omp_set_num_threads(int(std::max<int64_t>(1, config.train.threads)));
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
