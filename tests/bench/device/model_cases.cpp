// Whole models through Model: training steps, prefill in chunks, decode against a cache. The 1.2B
// hybrid, and the shape of Nemotron-Nano-9B-v2 (configs/models), both with random weights.
#include <memory>
#include <numeric>

#include "core/tensor/device.h"
#include "tests/bench/device/case.h"
#include "tests/bench/model_rig.h"

namespace strata::bench {
namespace {

using Sizes = std::vector<std::pair<int64_t, int64_t>>;  // batch, tokens

Config hybrid(const std::string& pattern, int64_t d_model, int64_t vocab, Options mamba,
              Options attention, int64_t d_ff) {
  Config c;
  c.model.pattern = pattern;
  c.model.d_model = d_model;
  c.model.vocab_size = vocab;
  c.layers["M"] = std::move(mamba);
  c.layers["*"] = std::move(attention);
  c.layers["-"] = {{"d_ff", d_ff}};
  return c;
}

Options mamba(int64_t heads, int64_t head_dim, int64_t groups, int64_t d_state) {
  return {{"n_heads", heads}, {"head_dim", head_dim}, {"n_groups", groups}, {"d_state", d_state}};
}

Options attention(int64_t heads, int64_t kv_heads, int64_t head_dim) {
  return {{"n_heads", heads}, {"n_kv_heads", kv_heads}, {"head_dim", head_dim}};
}

Config hybrid_1_2b() {
  Config c = hybrid("M-M-M-M*-M-M-M-M*-M-M-M-", 2560, 32768, mamba(80, 64, 8, 128),
                    attention(20, 4, 128), 10240);
  c.model.tie_embeddings = true;
  return c;
}

Config nano_9b() {
  return hybrid("(M-)^3M(M-)^3M*-(M-)^2M*-((M-)^3M*-)^2M-M(M-)^6", 4480, 131072,
                mamba(128, 80, 8, 128), attention(40, 8, 128), 15680);
}

Config tiny_hybrid() {
  return hybrid("M-M*-", 32, 50, mamba(4, 16, 2, 16), attention(4, 2, 8), 48);
}

Config on_device(Config c, const Env& env) {
  c.model.device = to_string(env.device);
  c.model.dtype = name_of(env.dtype);
  return c;
}

// Values as they are at the start of a training: drawn on the device, where a host would take
// minutes.
void randomize(Model& model, Clock& clock) {
  uint64_t seed = 1;
  for (const NamedParam& p : model.params().all()) {
    const std::string& name = p.name;
    const auto is = [&](const char* end) { return name.ends_with(end); };
    double low = -0.035, high = 0.035;  // standard deviation 0.02
    if (is("A_log"))
      low = 0, high = 2.7;
    else if (is("dt_bias"))
      low = -6, high = -2;
    else if (is("norm.weight") || is(".D"))
      low = high = 1;
    else if (is("conv1d.weight"))
      low = -0.5, high = 0.5;
    clock.randomize(p.slot->value, low, high, seed++);
  }
}

Sample train(Env& env, const Config& config, int64_t batch, int64_t seq_len) {
  Config c = on_device(config, env);
  c.train.recompute = env.recompute;
  Training run(c, env.registry, batch, seq_len, [&](Model& m) { randomize(m, env.clock); });
  Sample sample;
  sample.tokens = double(batch * seq_len);
  sample.work.flops = 3 * flops_per_token(*run.model, seq_len) * sample.tokens;
  sample.plan_bytes = run.plan.total();
  sample.seconds = env.clock.seconds({.body = [&] { run.step(); }, .captures = false});
  return sample;
}

// A model that extends sequences by calls of at most (batch, n) tokens.
struct Inference {
  Inference(Env& env, const Config& config, int64_t batch, int64_t n, const CacheLimits& limits)
      : model(on_device(config, env), env.registry), tokens(size_t(batch * n)) {
    plan = model.plan({batch, n, false, false});
    plan.require(0, env.device);
    model.allocate(plan, false);
    randomize(model, env.clock);
    cache = std::make_unique<Cache>(model.cache_layout(), limits, env.device);
    const int64_t vocab = model.config().model.vocab_size;
    for (size_t i = 0; i < tokens.size(); ++i)
      tokens[i] = int32_t(int64_t(i * 31 + i / 97 * 7) % vocab);
  }
  void extend(std::span<const int> ids, int64_t n) {
    model.extend(*cache, ids, view_of(tokens.data(), {int64_t(ids.size()), n}, DType::i32), false);
  }
  double weight_bytes() { return double(matmul_numbers(model)) * double(size_of(model.dtype())); }

  Model model;
  MemoryPlan plan;
  std::unique_ptr<Cache> cache;
  std::vector<int32_t> tokens;
};

// One prompt from an empty cache to the logits of its last token.
Sample prefill(Env& env, const Config& config, int64_t prompt) {
  const int64_t chunk = std::min(prompt, env.prefill_chunk);
  Inference run(env, config, 1, chunk, {.sequences = 1, .tokens = prompt});
  const ModelConfig& m = run.model.config().model;
  Sample sample;
  sample.tokens = double(prompt);
  sample.work = {flops_per_token(run.model, prompt, false) * double(prompt) +
                     2.0 * double(m.vocab_size) * double(m.d_model),
                 run.weight_bytes()};
  sample.plan_bytes = run.plan.total();
  const auto body = [&] {
    const int id = run.cache->open();
    for (int64_t done = 0; done < prompt; done += chunk)
      run.extend(std::span(&id, 1), std::min(chunk, prompt - done));
    run.cache->close(id);
  };
  sample.seconds = env.clock.seconds({.body = body, .captures = false});
  return sample;
}

// One more token for each of `batch` sequences of up to `context` tokens. Their keys and values are
// random numbers instead of a prompt's.
Sample decode(Env& env, const Config& config, int64_t batch, int64_t context) {
  constexpr int64_t kSteps = kPageTokens;  // more than a measurement takes; all on one page
  const int64_t tokens = batch * context;
  Inference run(env, config, batch, 1, {.sequences = batch, .tokens = tokens});
  std::vector<int> ids(static_cast<size_t>(batch), 0);
  for (int& id : ids) id = run.cache->open();
  const CacheBatch& held = run.cache->begin(ids, context - kSteps);
  for (size_t g = 0; g < held.groups.size(); ++g) {
    const int64_t numbers = run.cache->layout().groups[g].page_bytes *
                            ((tokens + kPageTokens - 1) / kPageTokens) /
                            int64_t(size_of(run.model.dtype()));
    env.clock.randomize(view_of(held.groups[g].pages, {numbers}, run.model.dtype(), env.device), -1,
                        1, 77 + g);
  }
  run.cache->end();
  Sample sample;
  sample.tokens = double(batch);
  sample.work = {flops_per_token(run.model, context) * double(batch),
                 run.weight_bytes() + double(batch) * sequence_bytes(run.model, context)};
  sample.plan_bytes = run.plan.total();
  sample.seconds = env.clock.seconds({.body = [&] { run.extend(ids, 1); }, .captures = false});
  return sample;
}

void add_inference(std::vector<Case>& cases, const std::string& name, const Config& config,
                   const std::vector<int64_t>& prompts, const Sizes& decodes) {
  for (const int64_t prompt : prompts)
    cases.push_back({"prefill_" + name + "/" + batch_by(1, prompt),
                     [=](Env& env) { return prefill(env, config, prompt); }});
  for (auto [batch, context] : decodes)
    cases.push_back({"decode_" + name + "/" + batch_by(batch, context),
                     [=, batch = batch, context = context](Env& env) {
                       return decode(env, config, batch, context);
                     }});
}

}  // namespace

std::vector<Case> model_cases(Scale scale) {
  std::vector<Case> cases;
  const auto add_training = [&](const std::string& name, const Config& config, const Sizes& sizes) {
    for (auto [batch, seq_len] : sizes)
      cases.push_back({"train_" + name + "/" + batch_by(batch, seq_len),
                       [=, batch = batch, seq_len = seq_len](Env& env) {
                         return train(env, config, batch, seq_len);
                       }});
  };
  if (scale == Scale::tiny) {
    add_training("tiny", tiny_hybrid(), {{2, 40}});
    add_inference(cases, "tiny", tiny_hybrid(), {90}, {{3, 70}});
    return cases;
  }
  const Sizes decodes{{1, 4096}, {8, 4096}, {64, 4096}};
  add_training("1.2b", hybrid_1_2b(), {{8, 4096}, {1, 32768}});
  add_inference(cases, "1.2b", hybrid_1_2b(), {4096, 65536}, decodes);
  add_inference(cases, "nano", nano_9b(), {4096, 65536}, decodes);
  return cases;
}

}  // namespace strata::bench
