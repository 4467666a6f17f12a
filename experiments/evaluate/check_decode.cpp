// Golden checks of decoding: the prompt, then token by token, then greedily.
#include <algorithm>

#include "experiments/evaluate/golden_cache.h"
#include "experiments/evaluate/model_check.h"

namespace strata::golden {

std::vector<int> ModelCheck::open(Cache& cache) const {
  std::vector<int> sequences;
  for (int64_t i = 0; i < batch_; ++i) sequences.push_back(cache.open());
  return sequences;
}

Cache ModelCheck::make_cache(int64_t tokens) const {
  return model_.make_cache({.sequences = batch_, .tokens = batch_ * (tokens + kPageTokens)});
}

int64_t ModelCheck::prompt_length() const {
  const int64_t n = has("prefill_logits")
                        ? load(golden_, "prefill_logits", {batch_, -1, vocab()}).shape[1]
                        : settings_.prefill;
  if (n == 0) {
    throw Error(golden_.path() + ": the prompt's length is unknown; expected prefill_logits, " +
                "or \"prefill\" in golden.json");
  }
  if (n > length_) {
    throw Error(golden_.path() + ": the prompt has " + std::to_string(n) +
                " positions, input_ids only " + std::to_string(length_));
  }
  return n;
}

void ModelCheck::decode() {
  const int64_t n = prompt_length();
  Cache cache = make_cache(length_);
  const std::vector<int> sequences = open(cache);
  Ids prompt = columns_of(ids_, 0, n);
  const Tensor first = model_.extend(cache, sequences, prompt.tensor(), true);
  const Expected expected = expected_logits("prefill_logits", 0, n);
  if (expected.is_known()) {
    add(row_of("prefill logits", largest_difference(numbers_of(first), expected.values.data),
               expected.limit));
  }
  check_cache("cache after prefill", "cache_prefill.", cache, sequences);

  const Expected rest = n < length_ ? expected_logits("decode_logits", n, length_) : Expected{};
  Worst steps;
  for (int64_t t = n; t < length_; ++t) {
    Ids token = columns_of(ids_, t, t + 1);
    const Tensor logits = model_.extend(cache, sequences, token.tensor(), true);
    if (!rest.is_known()) continue;
    steps.add(largest_difference(numbers_of(logits), positions_of(rest.values, t - n, t - n + 1)),
              "position " + std::to_string(t));
  }
  if (!steps.empty()) add(steps.row("decode logits", rest.limit));
  check_cache("cache at the end", "cache_end.", cache, sequences);
  if (rest.is_known()) continuation(n);
}

// The prompt, then all the rest in one call that starts from the cache.
void ModelCheck::continuation(int64_t n) {
  const Expected expected = expected_logits("decode_logits", n, length_);
  Cache cache = make_cache(length_);
  const std::vector<int> sequences = open(cache);
  Ids prompt = columns_of(ids_, 0, n), rest = columns_of(ids_, n, length_);
  model_.extend(cache, sequences, prompt.tensor(), false);
  const Tensor logits = model_.extend(cache, sequences, rest.tensor(), true);
  add(row_of("logits of a second part",
             largest_difference(numbers_of(logits), expected.values.data), expected.limit));
}

void ModelCheck::check_cache(const std::string& name, const std::string& prefix, Cache& cache,
                             const std::vector<int>& sequences) {
  if (half_) return;  // the reference says nothing of them
  Worst worst;
  double largest = 0;
  for (const StoredTensor& tensor : golden_.tensors()) {
    if (!tensor.name.starts_with(prefix)) continue;
    const size_t dot = tensor.name.find('.', prefix.size());
    const std::string number = tensor.name.substr(prefix.size(), dot - prefix.size());
    if (dot == std::string::npos || number.empty() || number.size() > 6 ||
        number.find_first_not_of("0123456789") != std::string::npos) {
      throw Error(golden_.path() + ": tensor " + tensor.name + ": expected " + prefix +
                  "LAYER.NAME");
    }
    const size_t layer = std::stoul(number);
    const Values expected = load(golden_, tensor.name);
    largest = std::max(largest, expected.largest());
    const std::string what = tensor.name.substr(dot + 1);
    const auto blocks = blocks_of(layer);
    try {
      worst.add(cache_difference(model_, cache, sequences, blocks, what, expected), tensor.name);
    } catch (const Error& error) {
      throw Error(golden_.path() + ": tensor " + tensor.name + ": " + error.what());
    }
  }
  if (!worst.empty()) add(worst.row(name, limit_of_f32(limits_.logits, largest)));
}

// Our blocks [first, last) of a foreign layer.
std::pair<size_t, size_t> ModelCheck::blocks_of(size_t layer) const {
  const auto& ends = foreign_.layer_ends;
  if (layer >= ends.size()) {
    throw Error(golden_.path() + ": it names layer " + std::to_string(layer) + ", the model has " +
                std::to_string(ends.size()));
  }
  return {layer ? size_t(ends[layer - 1]) : 0, size_t(ends[layer])};
}

void ModelCheck::greedy() {
  const Values expected = load(golden_, "greedy_ids", {batch_, -1}, Stored::integers);
  const int64_t steps = expected.shape[1], n = prompt_length();
  Cache cache = make_cache(n + steps);
  const std::vector<int> sequences = open(cache);
  Ids next = columns_of(ids_, 0, n);
  Worst different;
  for (int64_t s = 0; s < steps; ++s) {
    const Tensor logits = model_.extend(cache, sequences, next.tensor(), false);
    const std::vector<double> values = numbers_of(logits);
    const int64_t vocab = logits.cols();
    next = {{}, batch_, 1};
    for (int64_t r = 0; r < batch_; ++r) {
      const auto row = values.begin() + r * vocab;
      const auto id = int32_t(std::max_element(row, row + vocab) - row);
      const auto wanted = int32_t(expected.data[size_t(r * steps + s)]);
      different.add(id == wanted ? 0 : 1,
                    "row " + std::to_string(r) + ", step " + std::to_string(s) + ": expected " +
                        std::to_string(wanted) + ", got " + std::to_string(id));
      next.data.push_back(id);
    }
  }
  GoldenRow row = different.row("greedy ids", 0);
  if (row.status == GoldenStatus::ok) row.note.clear();
  add(std::move(row));
}

}  // namespace strata::golden
