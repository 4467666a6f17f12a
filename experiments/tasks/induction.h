// Induction heads (Gu and Dao, "Mamba", arXiv 2312.00752, appendix E.1).
//   Ordinary tokens of [0, V - 1); the special token V - 1 stands once in the body and again at the
//   last position, whose label is the token that followed it in the body.
#pragma once

#include "experiments/tasks/task.h"

namespace strata {

class Induction final : public Task {
 public:
  explicit Induction(const TaskOptions& options);
  static const std::vector<TaskOption>& table();

  std::string name() const override { return "induction"; }
  int64_t vocab_size() const override { return vocab_size_; }
  int64_t seq_len(Split split) const override {
    return split == Split::eval ? eval_seq_len_ : seq_len_;
  }
  int64_t eval_size() const override { return eval_size_; }
  double chance() const override { return 1.0 / double(vocab_size_ - 1); }
  double in_context_floor() const override;
  void fill_example(Split split, uint64_t seed, int64_t step, int64_t index,
                    Example out) const override;

 private:
  int64_t vocab_size_, seq_len_, eval_seq_len_, eval_size_;
};

}  // namespace strata
