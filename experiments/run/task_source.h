// A task as the trainer's data.
#pragma once

#include <memory>

#include "core/train/data.h"
#include "experiments/tasks/task.h"

namespace strata {

class TaskSource final : public DataSource {
 public:
  explicit TaskSource(const TaskConfig& config) : task_(make_task(config.name, config.options)) {}

  const Task& task() const { return *task_; }
  int64_t vocab_size() const override { return task_->vocab_size(); }
  int64_t train_seq_len() const override { return task_->seq_len(Split::train); }
  int64_t eval_seq_len() const override { return task_->seq_len(Split::eval); }
  int64_t eval_rows() const override { return task_->eval_size(); }
  bool documents() const override { return task_->name() == "text"; }
  std::string metric() const override { return task_->metric(); }
  void train_rows(uint64_t seed, int64_t step, int64_t first, int64_t batch,
                  HostBatch& out) const override {
    fill(Split::train, seed, step, first, batch, out);
  }
  void eval_rows(uint64_t seed, int64_t first, int64_t batch, HostBatch& out) const override {
    fill(Split::eval, seed, 0, first, batch, out);
  }

 private:
  void fill(Split split, uint64_t seed, int64_t step, int64_t first, int64_t batch,
            HostBatch& out) const;
  std::unique_ptr<Task> task_;
};

}  // namespace strata
