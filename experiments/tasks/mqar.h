// Multi-query associative recall (Arora et al., "Zoology", arXiv 2312.04927, appendix E).
//   context = passes times (k1 v1 ... kK vK); keys K distinct of [1, V/2), values K distinct of
//   [V/2, V). After it lie S = (T - 2 K passes) / 2 slots of two positions; key i goes to the first
//   position of a slot drawn without replacement with p_g ~ alpha g^(alpha - 1), g = 1..S, and is
//   labelled there with its value. All other positions hold 0 (or random tokens), without loss.
#pragma once

#include "experiments/tasks/task.h"

namespace strata {

class Mqar final : public Task {
 public:
  // Throws Error where the sizes do not go together.
  explicit Mqar(const TaskOptions& options);
  static const std::vector<TaskOption>& table();

  std::string name() const override { return "mqar"; }
  int64_t vocab_size() const override { return vocab_size_; }
  int64_t seq_len(Split) const override { return seq_len_; }
  int64_t eval_size() const override { return eval_size_; }
  double chance() const override { return 1.0 / double(vocab_size_ - vocab_size_ / 2); }
  double in_context_floor() const override { return 1.0 / double(n_pairs_); }
  void fill_example(Split split, uint64_t seed, int64_t step, int64_t index,
                    Example out) const override;

 private:
  int64_t vocab_size_, seq_len_, n_pairs_, passes_, eval_size_;
  bool random_non_queries_;
  std::vector<double> slot_weights_;  // (S)
};

}  // namespace strata
