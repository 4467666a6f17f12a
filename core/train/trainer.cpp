#include "core/train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "core/tensor/convert.h"
#include "core/tensor/device.h"
#include "core/train/schedule.h"

namespace strata {

Diverged::~Diverged() = default;

Trainer::Trainer(Model& model, const DataSource& source, const TrainConfig& train, bool decay_all)
    : model_(model), source_(source), train_(train) {
  if (train_.accumulate < 1 || train_.batch_size % train_.accumulate != 0)
    throw Error("train.batch_size = " + std::to_string(train_.batch_size) +
                " must be a multiple of train.accumulate = " + std::to_string(train_.accumulate));
  learning_rate(train_, 1);  // refuses unknown schedules before anything is allocated
  plan_ = plan_training(model_, source_, train_);
  plan_.require(size_t(train_.memory_limit), model_.device());
  AdamWConfig adamw{train_.betas[0], train_.betas[1], train_.eps, train_.weight_decay, decay_all};
  try {
    model_.allocate(plan_, true);
    model_.initialize(uint64_t(train_.seed));
    optimizer_ = std::make_unique<AdamW>(model_.params(), adamw);
  } catch (const Error& e) {  // memory that was free for the plan is taken by somebody else now
    if (e.kind() != ErrorKind::resource) throw;
    throw Error(std::string(e.what()) + "; the plan of the run is\n" + plan_.table(), e.kind());
  }
}

// What a process gains besides the arenas once it trains, nearly the same for every model: pages of
// libraries that are touched for the first time, oneDNN's generated kernels, stacks of threads.
constexpr size_t kRuntimeBytes = size_t{16} << 20;

MemoryPlan plan_training(Model& model, const DataSource& source, const TrainConfig& train) {
  model.stack().set_recompute(train.recompute);
  const int64_t rows = train.batch_size / std::max<int64_t>(1, train.accumulate);
  MemoryPlan plan = model.plan({rows, source.train_seq_len(), source.documents(), true});
  const MemoryPlan eval =
      model.plan({rows, source.eval_seq_len(), source.documents(), false, false});
  plan.optimizer += AdamW::table_bytes(model.params());
  plan.activations = std::max(plan.activations, eval.activations);
  plan.scratch = std::max(plan.scratch, eval.scratch);
  if (model.device().kind == DeviceKind::cpu) plan.runtime = kRuntimeBytes;
  return plan;
}

StepReport Trainer::step() {
  const auto start = std::chrono::steady_clock::now();
  StepReport report;
  report.step = step_ + 1;
  report.lr = learning_rate(train_, report.step);

  // The count over the whole step comes first: every gradient is divided by it.
  std::vector<HostBatch> batches(static_cast<size_t>(train_.accumulate));
  for (int64_t i = 0; i < train_.accumulate; ++i) {
    source_.train_rows(uint64_t(train_.seed), step_, i * microbatch(), microbatch(), batches[i]);
    report.labelled += batches[i].labelled();
    report.tokens += batches[i].batch * batches[i].seq_len;
  }
  model_.params().zero_grads();
  for (HostBatch& batch : batches) {
    // token: one mean over all labelled positions; microbatch: the mean of the microbatches' means.
    const double count = train_.loss_norm == "microbatch"
                             ? double(batch.labelled()) * double(train_.accumulate)
                             : double(report.labelled);
    model_.start_training(batch.view(), count > 0 ? 1 / count : 0, uint64_t(step_),
                          1 / double(train_.accumulate));
  }
  optimizer_->begin(report.lr, train_.clip);
  optimizer_->update(model_.context(), model_.training_loss());
  const LossSum sum = model_.finish_training();
  const AdamW::Outcome outcome = optimizer_->finish();
  report.loss = sum.mean;
  report.aux_loss = sum.aux / double(train_.accumulate);
  report.grad_norm = outcome.norm;
  ++step_;
  report.skipped = !outcome.applied;
  if (report.skipped) {
    ++skipped_;
    ++skipped_in_row_;
    report.culprit = find_culprit(batches);
  } else {
    skipped_in_row_ = 0;
  }
  model_.after_step(!report.skipped);
  report.skipped_so_far = skipped_;
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (skipped_in_row_ >= train_.max_skipped && train_.max_skipped > 0)
    throw Diverged("diverged at step " + std::to_string(report.step) + ": " +
                       std::to_string(skipped_in_row_) +
                       " steps in a row had no finite loss and gradient; it began in " +
                       report.culprit + "; lower train.lr or raise train.warmup",
                   report);
  return report;
}

static bool all_finite(const Tensor& tensor) {
  for (const double x : numbers_of(tensor))
    if (!std::isfinite(x)) return false;
  return true;
}

static double largest(const Tensor& tensor) {
  double most = 0;
  for (const double x : numbers_of(tensor)) most = std::max(most, std::abs(x));
  return most;
}

// What is most likely to have made a block overflow: its largest parameter.
static std::string largest_parameter(const std::vector<NamedParam>& params,
                                     const std::string& prefix) {
  std::string name;
  double most = -1;
  for (const NamedParam& p : params)
    if (p.name.starts_with(prefix) && largest(p.slot->value) > most) {
      most = largest(p.slot->value);
      name = p.name;
    }
  char value[32];
  std::snprintf(value, sizeof value, "%.3g", most);
  return name.empty() ? "" : "; its largest parameter is " + name + " with " + value;
}

// A bad loss began in the first place of the forward whose output is bad; a bad gradient in the
// first place of the backward, which walks from the head to the embedding.
std::string Trainer::find_culprit(std::vector<HostBatch>& batches) {
  const auto& all = model_.params().all();
  const auto& blocks = model_.stack().blocks();
  for (const NamedParam& p : all)
    if (!all_finite(p.slot->value)) return "parameter " + p.name + " (its value is not finite)";
  for (HostBatch& batch : batches) {
    if (std::isfinite(model_.evaluate(batch.view()).loss)) continue;
    std::string first;
    model_.walk(batch.view(), [&](const std::string& name, Tensor h) {
      if (first.empty() && !all_finite(h)) first = name;
    });
    if (first.empty()) return "the LM head, in forward" + largest_parameter(all, "lm_head.");
    if (first == "embed") return "the embedding, in forward" + largest_parameter(all, "embed.");
    if (first == "final")
      return "the final norm, in forward" + largest_parameter(all, "final_norm.");
    return blocks[std::stoul(first)].place + ", in forward" +
           largest_parameter(all, "blocks." + first + ".");
  }
  const auto bad_gradient = [&](const std::string& prefix) {
    std::string name;  // the last one: the backward reaches it first
    for (const NamedParam& p : all)
      if (p.name.starts_with(prefix) && p.slot->grad && !all_finite(p.slot->grad)) name = p.name;
    return name;
  };
  for (const char* prefix : {"lm_head.", "final_norm."})
    if (const std::string name = bad_gradient(prefix); !name.empty())
      return "the gradient of " + name;
  for (size_t i = blocks.size(); i-- > 0;)
    if (const std::string name = bad_gradient("blocks." + std::to_string(i) + "."); !name.empty())
      return blocks[i].place + ", gradient of " + name;
  return "the gradient of " + bad_gradient("");
}

EvalReport Trainer::evaluate() {
  int64_t rows = source_.eval_rows();
  if (train_.eval_batches > 0) rows = std::min(rows, train_.eval_batches * microbatch());
  EvalReport report;
  int64_t right = 0;
  double loss = 0;
  for (int64_t first = 0; first < rows; first += microbatch()) {
    source_.eval_rows(uint64_t(train_.seed), first, std::min(microbatch(), rows - first), batch_);
    predictions_.resize(batch_.tokens.size());
    const TokenBatch view = batch_.view();
    const LossSum sum =
        model_.evaluate(view, view_of(predictions_.data(), view.tokens.shape, DType::i32));
    loss += sum.loss;
    report.labelled += sum.count;
    for (size_t i = 0; i < predictions_.size(); ++i)
      right += batch_.labels[i] != kNoLabel && predictions_[i] == batch_.labels[i];
  }
  if (report.labelled == 0) throw Error("the evaluation set has no labelled position");
  report.loss = loss / double(report.labelled);
  report.metric = source_.metric() == "accuracy" ? double(right) / double(report.labelled)
                                                 : report.loss / std::log(2.0);
  return report;
}

Trainer::Cursor Trainer::cursor() const {
  return {step_, optimizer_->steps(), skipped_, skipped_in_row_};
}

void Trainer::restore(const Cursor& c) {
  step_ = c.step;
  skipped_ = c.skipped;
  skipped_in_row_ = c.skipped_in_row;
  optimizer_->set_steps(c.updates);
}

}  // namespace strata
