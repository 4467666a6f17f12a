// A model in training, and what its passes do at least: for the rows of whole steps on any device.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "core/model/model.h"
#include "core/train/adamw.h"

namespace strata::bench {

// Flops of the forward of one token at a sequence length: matmuls, scans in chunks of 128,
// attention's causal half. Without the head: what a prefill does for all tokens but the last.
double flops_per_token(Model& model, int64_t seq_len, bool head = true);

// Numbers in the matrices that every step multiplies by: the embedding only where it is the head.
int64_t matmul_numbers(Model& model);

// Bytes that one sequence of `context` tokens makes a decode step move: keys and values read,
// fixed state read and written.
double sequence_bytes(const Model& model, int64_t context);

// Whole training steps on rows of tokens, as the trainer takes them.
struct Training {
  // `fill` gives the parameters their values. Throws Error when the device cannot hold the plan.
  Training(Config config, LayerFactory& factory, int64_t batch, int64_t seq_len,
           const std::function<void(Model&)>& fill);
  void step();

  int64_t batch, seq_len;
  MemoryPlan plan;
  std::unique_ptr<Model> model;
  std::unique_ptr<AdamW> optimizer;
  std::vector<int32_t> tokens;
};

}  // namespace strata::bench
