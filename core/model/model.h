// A language model: embedding, stack, final norm, head. Nothing here knows files, tasks or
// optimizers.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/model/cache.h"
#include "core/model/notes.h"
#include "core/model/plan.h"
#include "core/model/stack.h"
#include "core/model/step_graphs.h"
#include "core/ops/lm_head_loss.h"

namespace strata {

// Rows of tokens to learn from or to score. All (batch, seq_len) i32, owned by the caller.
struct TokenBatch {
  Tensor tokens;
  Tensor labels;   // what each position must predict, -100: nothing
  Tensor seq_idx;  // the document of each token, absent when a row is one document
};

// Sums over the labelled positions of a batch.
struct LossSum {
  double loss = 0;  // natural logarithms
  int64_t count = 0;
  double aux = 0;   // weighted auxiliary losses
  double mean = 0;  // training: each microbatch's loss times its inverse count
};

// The widest call of a run, for planning.
struct CallShape {
  int64_t batch = 1, seq_len = 1;
  bool documents = false;  // seq_idx is given
  bool training = true;
  bool extends = true;  // without training: extend() is called, with logits of all positions
};

class STRATA_API Model {
 public:
  // Assembles the stack and declares every parameter; allocates nothing. `config.model.vocab_size`
  // must be set. Throws Error with the place of whatever is wrong.
  Model(Config config, LayerFactory& factory);

  // Bytes of a run whose widest call is `shape`; runs the same code without memory.
  // `optimizer_states`: copies of the trainable parameters that the optimizer keeps, beside the
  // exact ones of two-byte parameters.
  MemoryPlan plan(const CallShape& shape, int optimizer_states = 2);

  // Allocates parameters (and gradients when training) and the arenas of the plan.
  void allocate(const MemoryPlan& plan, bool training);
  void initialize(uint64_t seed) { params_.initialize(seed); }

  // Starts forward and backward of one microbatch; adds to the gradients. `inverse_count` is 1 /
  // (labelled positions of the whole step), `step` names the random draws of layers. The device may
  // still run when it returns.
  void start_training(const TokenBatch& batch, double inverse_count, uint64_t step,
                      double aux_scale = 1);
  // The sum of the losses since the last finish_training, (1,) f64 on the device.
  Tensor training_loss() const { return notes_.sum(Notes::loss); }
  // Waits, and returns the sums over the microbatches since the last time.
  LossSum finish_training();
  // Both for one microbatch.
  LossSum train(const TokenBatch& batch, double inverse_count, uint64_t step, double aux_scale = 1);

  // Ends an optimizer step: every layer's after_step hook with what the step's microbatches
  // counted. Not `updated`: the step was skipped, its counts are forgotten.
  void after_step(bool updated);

  // Scores a batch without gradients. `predictions` (batch, seq_len) i32, when given, receives the
  // most likely token at each labelled position (-1 elsewhere).
  LossSum evaluate(const TokenBatch& batch, Tensor predictions = {});

  // Logits of every position, (batch, seq_len, vocab_size) in the model's dtype, on its device,
  // valid until the next call; for tests and golden checks. `see` is shown the stream, (batch,
  // seq_len, d_model): "embed", "0", "1", ... after each block, and "final" after the final norm.
  using SeeHidden = std::function<void(const std::string& name, Tensor h)>;
  Tensor logits(const TokenBatch& batch, const SeeHidden& see = {});
  // Shows the stream as logits() does, without logits: it needs no more than evaluate().
  void walk(const TokenBatch& batch, const SeeHidden& see);

  // Appends tokens (batch, n) to cached sequences and returns the logits of the last position of
  // each, (batch, vocab_size), or of all positions, (batch, n, vocab_size). Long prompts are to be
  // given in chunks.
  Tensor extend(Cache& cache, std::span<const int> sequences, Tensor tokens, bool all_positions);

  // A cache for this model's sequences. Arenas for calls up to (batch, chunk) tokens must have been
  // planned with training = false.
  Cache make_cache(const CacheLimits& limits) const { return Cache(layout_, limits, device_); }
  const CacheLayout& cache_layout() const { return layout_; }

  const Config& config() const { return config_; }
  const Expansion& expansion() const { return expansion_; }
  ParamStore& params() { return params_; }
  Stack& stack() { return *stack_; }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  Context& context() { return *cx_; }
  void set_probe(Probe* probe) { cx_->set_probe(probe); }

 private:
  struct CallScope;
  Tensor embed(Context& cx, CallState& call, Tensor tokens);
  Param head() const;
  LmHeadOptions head_options() const;
  Tensor project(Context& cx, Tensor h);
  Tensor run_walk(Context& cx, const TokenBatch& batch, const SeeHidden& see);
  void declare_state();
  bool replays() const;
  Tensor run_step(StepGraphs::Key key, const std::function<Tensor()>& work);
  void run_training(Context& cx, const TokenBatch& batch, Tensor inverse_count, uint64_t step,
                    double aux_scale);
  LossSum run_evaluation(Context& cx, const TokenBatch& batch, Tensor predictions);
  Tensor run_extend(Context& cx, CallState& call, Tensor tokens, bool all_positions);

  Config config_;
  Expansion expansion_;
  DType dtype_;
  Device device_;
  ParamStore params_;
  Param embed_, lm_head_;
  HostNorm final_norm_;
  std::unique_ptr<Stack> stack_;
  CacheLayout layout_;
  Notes notes_;
  std::map<std::string, StepCounts> counts_;  // of the running step, by call site
  StepGraphs graphs_;
  bool draws_ = false;  // a layer draws random numbers: its steps differ
  std::unique_ptr<Memory> memory_;
  std::unique_ptr<Context> cx_;
};

}  // namespace strata
