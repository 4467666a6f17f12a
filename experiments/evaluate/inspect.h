// What a model is before any weight exists: blocks, parameters, and the bytes that one sequence
// keeps at a context length.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/model/model.h"

namespace strata {

struct ModelFacts {
  std::string pattern;  // flat
  std::string hash;     // names the stack
  std::string summary;  // "27 M, 4 *, 25 -"
  int64_t blocks = 0, d_model = 0, vocab_size = 0, parameters = 0;
  std::vector<std::pair<std::string, int64_t>>
      by_symbol;  // parameters; "host": embedding, norms, head
  CacheLayout cache;
  std::string all_attention;  // the pattern with every block that keeps something made attention
};

struct PoolBytes {
  int64_t state = 0, pages = 0;
  int64_t total() const { return state + pages; }
};

// Assembles the model without allocating it. `config.model.vocab_size` must be set. Throws Error
// with the place of whatever is wrong.
ModelFacts model_facts(const Config& config, LayerFactory& factory);

// Bytes of one sequence of `context` tokens, by pool. Pages hold 64 tokens; a windowed layer keeps
// the pages that its window and sinks touch.
PoolBytes pool_bytes(const CacheLayout& cache, int64_t context);

}  // namespace strata
