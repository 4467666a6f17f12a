#include "experiments/run/task_source.h"

namespace strata {

void TaskSource::fill(Split split, uint64_t seed, int64_t step, int64_t first, int64_t batch,
                      HostBatch& out) const {
  Batch rows(batch, task_->seq_len(split));
  task_->fill(split, seed, step, first, rows);
  out.batch = rows.batch;
  out.seq_len = rows.seq_len;
  out.tokens = std::move(rows.tokens);
  out.labels = std::move(rows.labels);
  out.seq_idx = documents() ? std::move(rows.seq_idx) : std::vector<int32_t>{};
}

}  // namespace strata
