#include "experiments/tasks/mqar.h"

#include <algorithm>
#include <cmath>

#include "experiments/tasks/draw.h"

namespace strata {

const std::vector<TaskOption>& Mqar::table() {
  static const std::vector<TaskOption> kTable{
      {"vocab_size", int64_t{128}, "tokens", "half of them are keys, half are values", 4, 1 << 24},
      {"seq_len", int64_t{64}, "tokens", "length of one example; even", 4, 1 << 24},
      {"n_pairs", int64_t{16}, "pairs", "key-value pairs to remember, each asked for once", 1,
       1 << 20},
      {"alpha", 0.01, "", "exponent of the slots' power law: small puts queries early", 1e-6, 100},
      {"passes", int64_t{1}, "", "how often the pairs are shown", 1, 1 << 20},
      {"random_non_queries", false, "",
       "fill unused positions with random tokens (they may collide with keys) instead of 0"},
      {"eval_size", int64_t{256}, "examples", "size of the evaluation set", 1, 1 << 24},
  };
  return kTable;
}

Mqar::Mqar(const TaskOptions& options)
    : vocab_size_(options.integer("vocab_size")),
      seq_len_(options.integer("seq_len")),
      n_pairs_(options.integer("n_pairs")),
      passes_(options.integer("passes")),
      eval_size_(options.integer("eval_size")),
      random_non_queries_(options.flag("random_non_queries")) {
  const auto say = [](const std::string& text) { throw Error("[task] mqar: " + text); };
  const std::string n_pairs = std::to_string(n_pairs_);
  if (seq_len_ % 2) say("seq_len must be even, got " + std::to_string(seq_len_));
  const int64_t needed = 2 * n_pairs_ * passes_ + 2 * n_pairs_;
  if (needed > seq_len_)
    say("n_pairs = " + n_pairs + " and passes = " + std::to_string(passes_) +
        " need seq_len of at least " + std::to_string(needed) + ", got " +
        std::to_string(seq_len_));
  if (vocab_size_ <= seq_len_)
    say("vocab_size must exceed seq_len = " + std::to_string(seq_len_) + ", got " +
        std::to_string(vocab_size_));
  const int64_t slots = (seq_len_ - 2 * n_pairs_ * passes_) / 2;
  const double alpha = options.number("alpha");
  for (int64_t g = 1; g <= slots; ++g)
    slot_weights_.push_back(alpha * std::pow(double(g), alpha - 1));
}

void Mqar::fill_example(Split split, uint64_t seed, int64_t step, int64_t index,
                        Example out) const {
  Random random = example_random("mqar", split, seed, step, index);
  const int64_t half = vocab_size_ / 2;
  const auto keys = draw_distinct(random, 1, half, n_pairs_);              // (K)
  const auto values = draw_distinct(random, half, vocab_size_, n_pairs_);  // (K)
  const auto slots = draw_weighted(random, slot_weights_, n_pairs_);       // (K)

  const int64_t context = 2 * n_pairs_ * passes_;
  std::fill(out.labels.begin(), out.labels.end(), kIgnore);
  std::fill(out.seq_idx.begin(), out.seq_idx.end(), 0);
  for (int64_t t = context; t < seq_len_; ++t)
    out.tokens[size_t(t)] = random_non_queries_ ? int32_t(random.below(uint64_t(vocab_size_))) : 0;
  for (int64_t t = 0; t < context; ++t) {
    const size_t pair = size_t(t / 2 % n_pairs_);
    out.tokens[size_t(t)] = t % 2 ? values[pair] : keys[pair];
  }
  for (size_t i = 0; i < size_t(n_pairs_); ++i) {
    const size_t t = size_t(context + 2 * slots[i]);
    out.tokens[t] = keys[i];
    out.labels[t] = values[i];
  }
}

}  // namespace strata
