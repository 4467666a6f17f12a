// Golden checks of training: loss, gradients, steps of AdamW.
#include <algorithm>
#include <cmath>

#include "core/train/adamw.h"
#include "experiments/evaluate/model_check.h"

namespace strata::golden {

// One forward and backward; the gradients are left in the parameters.
double ModelCheck::mean_loss_and_gradients(uint64_t step) {
  if (length_ < 2) {
    throw Error(golden_.path() + ": a loss needs at least 2 tokens, input_ids has " +
                std::to_string(length_));
  }
  Ids tokens = columns_of(ids_, 0, length_), labels = labels_of(ids_);
  const double count = double(batch_ * (length_ - 1));
  model_.params().zero_grads();
  return model_.train({tokens.tensor(), labels.tensor(), {}}, 1 / count, step, 0).loss / count;
}

void ModelCheck::gradients() {
  const double loss = mean_loss_and_gradients(0);
  if (has("loss")) {
    const double expected = load(golden_, "loss", {}, Stored::f64).data[0];
    add(row_of("loss", std::fabs(loss - expected), limit(limits_.train)));
  }
  if (has_any("grad.")) check_gradients();
}

void ModelCheck::check_gradients() {
  struct Pair {
    std::string name;
    Values expected;
    std::vector<double> got;
  };
  std::vector<Pair> pairs;
  double most = 0;
  for (const ForeignView& view : foreign_views(foreign_, model_.params())) {
    const std::string name = "grad." + view.name;
    if (!has(name)) continue;
    Values expected = load(golden_, name, files_.find(view.name)->shape);
    most = std::max(most, expected.largest());
    Tensor grad = view.param->slot->grad;
    if (grad) {
      grad.data = static_cast<char*>(grad.data) + view.begin * int64_t(size_of(grad.dtype));
      grad.shape = view.shape;
      grad.pitch = view.shape.cols();
    }
    pairs.push_back({name, std::move(expected), grad ? numbers_of(grad) : std::vector<double>{}});
  }
  for (const StoredTensor& tensor : golden_.tensors()) {
    if (!tensor.name.starts_with("grad.")) continue;
    const bool is_known = std::any_of(pairs.begin(), pairs.end(),
                                      [&](const Pair& p) { return p.name == tensor.name; });
    if (is_known) continue;
    throw Error(golden_.path() + ": the model has no tensor for " + tensor.name);
  }
  Worst worst;
  for (const Pair& p : pairs) {
    const double scale = gradient_scale(p.expected.largest(), most);
    worst.add(largest_difference(p.got, p.expected.data) / scale, p.name);
  }
  add(worst.row("gradients", exact_ ? 1e-6 : limits_.grad));
}

// AdamW on the one batch as golden.json says; the last of the losses is after the last step.
void ModelCheck::train() {
  const Values losses = load(golden_, "train.losses", {-1}, Stored::f64);
  const Values norms =
      has("train.grad_norms")
          ? load(golden_, "train.grad_norms", {int64_t(losses.data.size()) - 1}, Stored::f64)
          : Values{};
  const TrainSettings& with = settings_.train;
  AdamW optimizer(model_.params(), {.beta1 = with.beta1,
                                    .beta2 = with.beta2,
                                    .eps = with.eps,
                                    .weight_decay = with.weight_decay,
                                    .decay_all = true});
  Worst loss_errors, norm_errors;
  for (size_t s = 0; s < losses.data.size(); ++s) {
    const double loss = mean_loss_and_gradients(s);
    loss_errors.add(std::fabs(loss - losses.data[s]), "step " + std::to_string(s));
    if (s < norms.data.size()) {
      const double norm = optimizer.grad_norm(model_.context());
      norm_errors.add(std::fabs(norm / norms.data[s] - 1), "step " + std::to_string(s));
    }
    if (s + 1 < losses.data.size()) optimizer.step(model_.context(), with.lr, 1);
  }
  add(loss_errors.row("training losses", limit(limits_.train)));
  if (!norm_errors.empty()) add(norm_errors.row("gradient norms", limit(limits_.train)));
}

}  // namespace strata::golden
