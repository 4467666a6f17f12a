#include "experiments/evaluate/generate.h"

#include <algorithm>

#include "core/tensor/convert.h"

namespace strata {

void prepare_generation(Model& model, size_t memory_limit) {
  if (model.config().model.vocab_size != 256)
    throw Error("generation writes bytes, so model.vocab_size must be 256, got " +
                std::to_string(model.config().model.vocab_size) +
                "; train on task.name = \"text\"");
  const MemoryPlan plan = model.plan({1, kPrefillChunk, false, false});
  plan.require(memory_limit, model.device());
  model.allocate(plan, false);
}

std::string generate(Model& model, const GenerateConfig& config,
                     const std::function<bool(char)>& stream) {
  const SamplerOptions options{config.temperature, config.top_k, config.top_p};
  check_sampler(options);
  std::vector<int32_t> prompt;
  for (unsigned char byte : config.prompt) prompt.push_back(byte);
  if (prompt.empty()) prompt.push_back('\n');  // a model needs something to look at
  Cache cache =
      model.make_cache({.sequences = 1, .tokens = int64_t(prompt.size()) + config.max_tokens});
  const int sequence = cache.open();

  std::vector<double> logits;
  auto feed = [&](int32_t* tokens, int64_t n) {
    logits = numbers_of(
        model.extend(cache, std::span(&sequence, 1), view_of(tokens, {1, n}, DType::i32), false));
  };
  for (size_t i = 0; i < prompt.size(); i += kPrefillChunk)
    feed(prompt.data() + i, std::min<int64_t>(kPrefillChunk, int64_t(prompt.size() - i)));

  Random random(uint64_t(config.seed), stream_of("generate"));
  std::string text;
  while (int64_t(text.size()) < config.max_tokens) {
    int32_t token = sample(logits, options, random);
    text.push_back(char(token));
    if (stream && !stream(text.back())) break;
    if (int64_t(text.size()) < config.max_tokens) feed(&token, 1);
  }
  return text;
}

}  // namespace strata
