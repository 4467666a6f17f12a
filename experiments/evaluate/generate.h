// Text from a byte-level model: the prompt is prefilled in chunks, then one token at a time.
#pragma once

#include <functional>
#include <string>

#include "core/model/model.h"
#include "core/model/sampler.h"

namespace strata {

// Prefill chunk: long prompts need no more memory than this many tokens, beyond their pages.
constexpr int64_t kPrefillChunk = 256;

// Plans and allocates a model for generation with one sequence. Throws Error when its vocabulary is
// not bytes (256) or memory is short (`memory_limit` bytes, 0: what the machine has).
void prepare_generation(Model& model, size_t memory_limit = 0);

// The continuation of config.prompt, max_tokens bytes; `stream` sees each byte as it is drawn and
// may return false to stop.
std::string generate(Model& model, const GenerateConfig& config,
                     const std::function<bool(char)>& stream = {});

}  // namespace strata
