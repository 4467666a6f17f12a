// The training loop's one step, and what makes a run resumable.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/train/adamw.h"
#include "core/train/data.h"

namespace strata {

// What one optimizer step reports.
struct StepReport {
  int64_t step = 0;      // 1 for the first
  double loss = 0;       // mean over the labelled positions of the whole step
  double aux_loss = 0;   // weighted auxiliary losses, mean over microbatches
  double grad_norm = 0;  // before clipping
  double lr = 0;
  int64_t labelled = 0, tokens = 0;
  bool skipped = false;  // loss or gradient was not finite: nothing was changed
  int64_t skipped_so_far = 0;
  std::string culprit;  // of a skipped step: block and parameter where it began
  double seconds = 0;
};

// What an evaluation reports.
struct EvalReport {
  double loss = 0;    // mean, natural logarithms
  double metric = 0;  // the source's metric
  int64_t labelled = 0;
};

// After max_skipped steps in a row without a finite loss and gradient.
class STRATA_API Diverged : public Error {
 public:
  Diverged(const std::string& text, StepReport last) : Error(text), last(std::move(last)) {}
  ~Diverged() override;
  StepReport last;  // of the step that ended the run
};

// What training needs, its evaluations included. Allocates nothing.
STRATA_API MemoryPlan plan_training(Model& model, const DataSource& source,
                                    const TrainConfig& train);

class STRATA_API Trainer {
 public:
  // Plans, refuses when memory is short (train.memory_limit), allocates and initialises.
  // The model and the source must outlive the trainer.
  Trainer(Model& model, const DataSource& source, const TrainConfig& train, bool decay_all = false);

  // One optimizer step over train.accumulate microbatches. Throws Diverged.
  StepReport step();
  // The whole evaluation set, or train.eval_batches batches of it.
  EvalReport evaluate();

  int64_t steps_done() const { return step_; }
  bool finished() const { return step_ >= train_.steps; }
  const MemoryPlan& plan() const { return plan_; }
  Model& model() { return model_; }
  AdamW& optimizer() { return *optimizer_; }

  // The cursor of a run, for checkpoints.
  struct Cursor {
    int64_t step = 0;     // optimizer steps tried, skipped ones included
    int64_t updates = 0;  // steps that changed the weights
    int64_t skipped = 0, skipped_in_row = 0;
  };
  Cursor cursor() const;
  void restore(const Cursor& cursor);

 private:
  int64_t microbatch() const { return train_.batch_size / train_.accumulate; }
  // Where a step without a finite loss and gradient began.
  std::string find_culprit(std::vector<HostBatch>& batches);

  Model& model_;
  const DataSource& source_;
  TrainConfig train_;
  MemoryPlan plan_;
  std::unique_ptr<AdamW> optimizer_;
  HostBatch batch_;
  std::vector<int32_t> predictions_;
  int64_t step_ = 0, skipped_ = 0, skipped_in_row_ = 0;
};

}  // namespace strata
