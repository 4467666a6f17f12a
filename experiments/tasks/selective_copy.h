// Selective copying (Gu and Dao, "Mamba", arXiv 2312.00752, appendix E.1).
//   The first seq_len - n_tokens positions hold noise (0) and, at random places, n_tokens data
//   tokens of [1, V - 1); then come n_tokens markers (V - 1). The label of the j-th marker is the
//   j-th data token.
#pragma once

#include "experiments/tasks/task.h"

namespace strata {

class SelectiveCopy final : public Task {
 public:
  // Throws Error where the sizes do not go together.
  explicit SelectiveCopy(const TaskOptions& options);
  static const std::vector<TaskOption>& table();

  std::string name() const override { return "selective_copy"; }
  int64_t vocab_size() const override { return vocab_size_; }
  int64_t seq_len(Split split) const override {
    return split == Split::eval ? eval_seq_len_ : seq_len_;
  }
  int64_t eval_size() const override { return eval_size_; }
  double chance() const override { return 1.0 / double(vocab_size_ - 2); }
  double in_context_floor() const override;
  void fill_example(Split split, uint64_t seed, int64_t step, int64_t index,
                    Example out) const override;

 private:
  int64_t vocab_size_, seq_len_, eval_seq_len_, n_tokens_, eval_size_;
};

}  // namespace strata
