#include "tests/bench/model_rig.h"

namespace strata::bench {

int64_t matmul_numbers(Model& model) {
  int64_t n = 0;
  const bool tied = model.config().model.tie_embeddings;
  for (const NamedParam& p : model.params().all())
    if (p.slot->shape.rank == 2 && (tied || p.name != "embed.weight")) n += p.slot->shape.numel();
  return n;
}

double flops_per_token(Model& model, int64_t seq_len, bool head) {
  constexpr double kChunk = 128;
  const ModelConfig& m = model.config().model;
  double flops = 2.0 * double(matmul_numbers(model));
  if (!head) flops -= 2.0 * double(m.vocab_size) * double(m.d_model);
  for (const NamedParam& p : model.params().all())
    if (p.name.ends_with(".q_proj")) flops += 2.0 * double(seq_len) * double(p.slot->shape[0]);
  // C B^T of each group and its product with x, both causal halves; the states, built and read.
  const CacheLayout& layout = model.cache_layout();
  for (const CacheEntry& e : layout.entries) {
    if (e.spec.name != "ssm") continue;
    const double inner = double(e.spec.shape[0] * e.spec.shape[1]), n = double(e.spec.shape[2]);
    const double bc = (double(layout.find(e.site, "conv")->spec.shape[1]) - inner) / 2;
    flops += kChunk * bc + kChunk * inner + 4 * n * inner;
  }
  return flops;
}

double sequence_bytes(const Model& model, int64_t context) {
  double bytes = 0;
  for (const CacheEntry& e : model.cache_layout().entries) {
    const double size = double(e.spec.shape.numel()) * double(size_of(e.spec.dtype));
    bytes += e.spec.growth.kind == Growth::Kind::fixed ? 2 * size : double(context) * size;
  }
  return bytes;
}

Training::Training(Config config, LayerFactory& factory, int64_t batch, int64_t seq_len,
                   const std::function<void(Model&)>& fill)
    : batch(batch), seq_len(seq_len) {
  model = std::make_unique<Model>(std::move(config), factory);
  model->stack().set_recompute(model->config().train.recompute);
  plan = model->plan({batch, seq_len, false, true}, AdamW::kStates);
  plan.require(0, model->device());
  model->allocate(plan, true);
  fill(*model);
  optimizer = std::make_unique<AdamW>(model->params(), AdamWConfig{});
  tokens.resize(size_t(batch * seq_len));
  const int64_t vocab = model->config().model.vocab_size;
  for (size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = int32_t(int64_t(i * 31 + i / 97 * 7) % vocab);
}

void Training::step() {
  const Tensor ids = view_of(tokens.data(), {batch, seq_len}, DType::i32);
  model->params().zero_grads();
  model->start_training({ids, ids, {}}, 1.0 / double(batch * seq_len), 0);
  optimizer->begin(1e-4, 1);
  optimizer->update(model->context(), model->training_loss());
  model->finish_training();
  optimizer->finish();
}

}  // namespace strata::bench
