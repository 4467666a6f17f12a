#include "experiments/tasks/selective_copy.h"

#include <algorithm>

#include "experiments/tasks/draw.h"

namespace strata {

const std::vector<TaskOption>& SelectiveCopy::table() {
  static const std::vector<TaskOption> kTable{
      {"vocab_size", int64_t{16}, "tokens", "0 is noise, the last is the marker, others are data",
       3, 1 << 24},
      {"seq_len", int64_t{32}, "tokens", "length of one example, answers included", 2, 1 << 24},
      {"n_tokens", int64_t{6}, "tokens", "data tokens to copy", 1, 1 << 20},
      {"eval_seq_len", int64_t{0}, "tokens", "length in the evaluation; 0 means seq_len", 0,
       1 << 24},
      {"eval_size", int64_t{256}, "examples", "size of the evaluation set", 1, 1 << 24},
  };
  return kTable;
}

SelectiveCopy::SelectiveCopy(const TaskOptions& options)
    : vocab_size_(options.integer("vocab_size")),
      seq_len_(options.integer("seq_len")),
      eval_seq_len_(options.integer("eval_seq_len")),
      n_tokens_(options.integer("n_tokens")),
      eval_size_(options.integer("eval_size")) {
  if (eval_seq_len_ == 0) eval_seq_len_ = seq_len_;
  const int64_t shortest = std::min(seq_len_, eval_seq_len_);
  if (shortest < 2 * n_tokens_)
    throw Error("[task] selective_copy: n_tokens = " + std::to_string(n_tokens_) +
                " needs seq_len of at least " + std::to_string(2 * n_tokens_) + ", got " +
                std::to_string(shortest));
}

double SelectiveCopy::in_context_floor() const {
  const double own = 1.0 / double(n_tokens_);
  return own + (1.0 - own) * chance();  // another data token may be equal by chance
}

void SelectiveCopy::fill_example(Split split, uint64_t seed, int64_t step, int64_t index,
                                 Example out) const {
  Random random = example_random("selective_copy", split, seed, step, index);
  const int64_t body = seq_len(split) - n_tokens_;
  auto places = draw_distinct(random, 0, body, n_tokens_);  // (n_tokens)
  std::sort(places.begin(), places.end());
  std::fill(out.tokens.begin(), out.tokens.begin() + body, 0);
  std::fill(out.tokens.begin() + body, out.tokens.end(), int32_t(vocab_size_ - 1));
  std::fill(out.labels.begin(), out.labels.end(), kIgnore);
  std::fill(out.seq_idx.begin(), out.seq_idx.end(), 0);
  for (size_t j = 0; j < places.size(); ++j) {
    const auto data = int32_t(1 + random.below(uint64_t(vocab_size_ - 2)));
    out.tokens[size_t(places[j])] = data;
    out.labels[size_t(body) + j] = data;
  }
}

}  // namespace strata
