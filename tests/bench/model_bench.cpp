// Whole steps: training in model flops and host overhead, decode against the memory's bandwidth.
#include <chrono>
#include <cstring>
#include <numeric>

#include "core/model/model.h"
#include "core/train/adamw.h"
#include "plugins/host/registry.h"
#include "tests/bench/bench.h"

namespace strata::bench {

namespace {

// Forward flops of one token: matmuls, scan (chunks of Q) and attention (causal half).
double flops_per_token(const Model& model, int64_t seq_len) {
  double flops = 0;
  for (const NamedParam& p : const_cast<Model&>(model).params().all())
    if (p.slot->shape.rank == 2 && p.name != "embed.weight")
      flops += 2.0 * double(p.slot->shape.numel());
  const ModelConfig& m = model.config().model;
  for (const BlockSpec& block : model.expansion().blocks) {
    const double d = double(m.d_model);
    if (block.symbol == "*") flops += 2.0 * double(seq_len) * d;
    // d_inner 2 d, d_state 128, chunk 128: C B^T shared by the group, its product with x, the
    // states
    if (block.symbol == "M") flops += 128 * 128 + 128 * 2 * d + 4 * 128 * 2 * d;
  }
  return flops;
}

struct TrainCase {
  TrainCase(const std::string& pattern, int64_t d_model, int64_t batch, int64_t seq_len)
      : batch(batch), seq_len(seq_len) {
    Config c;
    c.model.pattern = pattern;
    c.model.d_model = d_model;
    c.model.vocab_size = 256;
    model = std::make_unique<Model>(c, registry);
    model->allocate(model->plan({batch, seq_len, false, true}), true);
    model->initialize(1);
    optimizer = std::make_unique<AdamW>(model->params(), AdamWConfig{});
    tokens.resize(size_t(batch * seq_len));
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = int32_t(i * 31 % 256);
  }
  void step() {
    const Tensor ids = view_of(tokens.data(), {batch, seq_len}, DType::i32);
    model->params().zero_grads();
    model->train({ids, ids, {}}, 1.0 / double(batch * seq_len), 0);
    const double norm = optimizer->grad_norm(model->context());
    optimizer->step(model->context(), 1e-4, clip_factor(norm, 1));
  }
  int64_t batch, seq_len;
  Registry registry;
  std::unique_ptr<Model> model;
  std::unique_ptr<AdamW> optimizer;
  std::vector<int32_t> tokens;
};

}  // namespace

std::vector<Row> training_rows() {
  std::vector<Row> rows;
  {
    TrainCase big("(M-M*-)^2", 512, 4, 1024);
    const auto t = medians({[&] { big.step(); }, matmul_probe()}, 5);
    const double rate = kProbeFlops / t[1];
    const double flops = 3 * flops_per_token(*big.model, 1024) * 4 * 1024;
    rows.push_back({"training step (M-M*-)^2", "d_model 512, 4 x 1024", flops / t[0] / 1e9,
                    rate / 1e9, "GFLOP/s", "matmul rate", flops / t[0] / rate, 0.55});
  }
  TrainCase small("(M-M*-)^2", 64, 64, 64);
  small.step();
  Profile profile;
  small.model->context().set_profile(&profile);
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 20; ++i) small.step();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double host = 1 - profile.kernel_seconds / seconds;
  rows.push_back({"host overhead of a step", "d_model 64, 64 x 64", 100 * host, 10, "% of the step",
                  "at most 10%", 0.1 / host, 1.0});
  return rows;
}

std::vector<Row> decode_rows() {
  // About 1.1 GB of float32 weights: far more than any cache holds.
  Registry registry;
  Config c;
  c.model.pattern = "(M-M*-)^4";
  c.model.d_model = 1536;
  c.model.vocab_size = 256;
  Model model(c, registry);
  model.allocate(model.plan({1, 16, false, false}), false);
  model.initialize(1);
  Cache cache = model.make_cache({.sequences = 1, .tokens = 4096});
  const int id = cache.open();
  int32_t token = 5;
  std::vector<float> block(size_t{1} << 28, 1.0f);  // 1 GiB
  volatile double sink = 0;
  auto read_memory = [&] {
    double total = 0;
#pragma omp parallel for simd reduction(+ : total)
    for (size_t i = 0; i < block.size(); ++i) total += double(block[i]);
    sink = total;
  };
  const auto t =
      medians({[&] {
                 model.extend(cache, std::span(&id, 1), view_of(&token, {1, 1}, DType::i32), false);
               },
               read_memory},
              9);
  (void)sink;
  double bytes = 0;
  for (const NamedParam& p : model.params().all())
    if (p.name != "embed.weight") bytes += double(p.slot->value.bytes());
  const double bandwidth = double(block.size() * 4) / t[1];
  char shape[64];
  std::snprintf(shape, sizeof shape, "%.2f GB float32, batch 1", bytes / 1e9);
  return {{"decode (M-M*-)^4", shape, bytes / t[0] / 1e9, bandwidth / 1e9, "GB/s",
           "memory bandwidth", bytes / t[0] / bandwidth, 0.8}};
}

}  // namespace strata::bench
