// Whole steps: training in model flops and host overhead, decode against the memory's bandwidth.
#include <chrono>
#include <cstring>
#include <numeric>

#include "plugins/host/registry.h"
#include "tests/bench/bench.h"
#include "tests/bench/model_rig.h"

namespace strata::bench {

// A step of a small vocabulary, in float32 on the CPU.
static Training training(const std::string& pattern, int64_t d_model, int64_t batch,
                         int64_t seq_len, LayerFactory& factory) {
  Config c;
  c.model.pattern = pattern;
  c.model.d_model = d_model;
  c.model.vocab_size = 256;
  return Training(c, factory, batch, seq_len, [](Model& m) { m.initialize(1); });
}

std::vector<Row> training_rows() {
  Registry registry;
  std::vector<Row> rows;
  {
    Training big = training("(M-M*-)^2", 512, 4, 1024, registry);
    const auto t = medians({[&] { big.step(); }, matmul_probe()}, 5);
    const double rate = kProbeFlops / t[1];
    const double flops = 3 * flops_per_token(*big.model, 1024) * 4 * 1024;
    rows.push_back({"training step (M-M*-)^2", "d_model 512, 4 x 1024", flops / t[0] / 1e9,
                    rate / 1e9, "GFLOP/s", "matmul rate", flops / t[0] / rate, 0.55});
  }
  Training small = training("(M-M*-)^2", 64, 64, 64, registry);
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
