#include "experiments/tasks/induction.h"

#include <algorithm>

namespace strata {

const std::vector<TaskOption>& Induction::table() {
  static const std::vector<TaskOption> kTable{
      {"vocab_size", int64_t{16}, "tokens", "the last is the special token", 3, 1 << 24},
      {"seq_len", int64_t{32}, "tokens", "length of a training example", 3, 1 << 24},
      {"eval_seq_len", int64_t{0}, "tokens", "length in the evaluation; 0 means seq_len", 0,
       1 << 24},
      {"eval_size", int64_t{256}, "examples", "size of the evaluation set", 1, 1 << 24},
  };
  return kTable;
}

Induction::Induction(const TaskOptions& options)
    : vocab_size_(options.integer("vocab_size")),
      seq_len_(options.integer("seq_len")),
      eval_seq_len_(options.integer("eval_seq_len")),
      eval_size_(options.integer("eval_size")) {
  if (eval_seq_len_ == 0) eval_seq_len_ = seq_len_;
  if (eval_seq_len_ < 3)
    throw Error("[task] induction: eval_seq_len must be 0 or at least 3, got " +
                std::to_string(eval_seq_len_));
}

double Induction::in_context_floor() const {
  const double own = 1.0 / double(eval_seq_len_ - 2);  // one ordinary token of the body at random
  return own + (1.0 - own) * chance();
}

void Induction::fill_example(Split split, uint64_t seed, int64_t step, int64_t index,
                             Example out) const {
  Random random = example_random("induction", split, seed, step, index);
  const int64_t length = seq_len(split);
  const auto special = int32_t(vocab_size_ - 1);
  for (int32_t& token : out.tokens) token = int32_t(random.below(uint64_t(special)));
  std::fill(out.labels.begin(), out.labels.end(), kIgnore);
  std::fill(out.seq_idx.begin(), out.seq_idx.end(), 0);
  const size_t place = random.below(uint64_t(length - 2));  // its successor is before the end
  out.tokens[place] = special;
  out.tokens[size_t(length - 1)] = special;
  out.labels[size_t(length - 1)] = out.tokens[place + 1];
}

}  // namespace strata
