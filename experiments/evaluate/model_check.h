// The checks of one model folder in one dtype, in parts: check_model.cpp (what is loaded, and the
// full forward), check_decode.cpp (prompts, single tokens, caches) and check_training.cpp (loss,
// gradients, steps).
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/io/families.h"
#include "core/model/model.h"
#include "experiments/evaluate/golden_batch.h"
#include "experiments/evaluate/golden_settings.h"

namespace strata::golden {

class ModelCheck {
 public:
  // Loads the model. Throws Error for everything that does not fit; rows go to `rows`.
  ModelCheck(const std::string& folder, const ForeignModel& foreign, LayerFactory& factory,
             DType dtype, std::vector<GoldenRow>& rows);
  // Every check that the folder has values for. Throws Error if there is none, or a stored tensor
  // is not as it must be.
  void run();

 private:
  // What logits must be, (batch, positions, vocab_size), and how far they may be off.
  struct Expected {
    Values values;
    double limit = 0;
    bool is_known() const { return !values.data.empty(); }
  };

  void allocate();
  void check_ids() const;
  void written_back();
  void forward();
  void decode();
  void continuation(int64_t prompt);
  void greedy();
  void gradients();
  void train();

  // Results that are stored as float32 of the float64 run can be met to their rounding only.
  double limit_of_f32(double tolerance, double largest) const;
  double limit(double tolerance) const { return exact_ ? 1e-9 : tolerance; }
  void add(GoldenRow row);
  int64_t vocab() const { return foreign_.config.model.vocab_size; }
  bool has(const std::string& name) const { return golden_.find(name) != nullptr; }
  bool has_any(const std::string& prefix) const;
  std::string hidden_name(const std::string& shown) const;
  // Of the full forward, and of the call that is stored as `name` and begins at `first`.
  Expected expected_logits() const;
  Expected expected_logits(const std::string& name, int64_t first, int64_t end) const;

  int64_t prompt_length() const;
  Cache make_cache(int64_t tokens) const;
  std::vector<int> open(Cache& cache) const;
  void check_cache(const std::string& name, const std::string& prefix, Cache& cache,
                   const std::vector<int>& sequences);
  std::pair<size_t, size_t> blocks_of(size_t layer) const;

  double mean_loss_and_gradients(uint64_t step);
  void check_gradients();

  const ForeignModel& foreign_;
  Safetensors golden_;
  TensorFiles files_;
  Settings settings_;
  Tolerances limits_;
  bool exact_;  // float64
  bool half_;   // bf16
  std::string suffix_;
  Values ids_;
  Model model_;
  std::vector<GoldenRow>& rows_;
  int64_t batch_ = 0, length_ = 0;
};

}  // namespace strata::golden
