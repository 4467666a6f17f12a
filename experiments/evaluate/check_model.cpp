// Golden checks of a model folder.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>

#include "core/io/families.h"
#include "core/model/model.h"
#include "core/train/adamw.h"
#include "experiments/evaluate/golden_batch.h"
#include "experiments/evaluate/golden_cache.h"
#include "experiments/evaluate/golden_checks.h"

namespace strata::golden {

namespace {

class ModelCheck {
 public:
  ModelCheck(const std::string& folder, const ForeignModel& foreign, LayerFactory& factory,
             DType dtype)
      : foreign_(foreign),
        golden_(folder + "/golden.safetensors"),
        files_(folder),
        limits_(read_tolerances(folder)),
        exact_(dtype == DType::f64),
        suffix_(exact_ ? " f64" : " f32"),
        ids_(load(golden_, "input_ids", {-1, -1})),
        model_(config_for(foreign, dtype), factory) {
    batch_ = ids_.shape[0];
    length_ = ids_.shape[1];
    check_ids();
    allocate();
    load_tensors(foreign_, files_, model_.params());
  }

  std::vector<GoldenRow> run() {
    forward();
    if (golden_.find("prefill_logits")) decode();
    if (golden_.find("greedy_ids")) greedy();
    if (golden_.find("loss")) gradients();
    if (golden_.find("train.losses")) train();
    return std::move(rows_);
  }

 private:
  static Config config_for(const ForeignModel& foreign, DType dtype) {
    Config config = foreign.config;
    config.model.dtype = name_of(dtype);
    return config;
  }

  void allocate() {
    // Greedy decoding goes on after the prompt; everything else stays within the length.
    const int64_t widest = std::max(length_, int64_t{1});
    MemoryPlan plan = model_.plan({batch_, widest, false, false});
    const MemoryPlan training = model_.plan({batch_, widest, false, true});
    const size_t hidden = size_t(batch_ * widest * foreign_.config.model.d_model) * 8;
    const size_t logits = size_t(batch_ * widest * foreign_.config.model.vocab_size) * 8;
    plan.activations = std::max(plan.activations, training.activations) + 8 * hidden + 2 * logits;
    plan.scratch = std::max(plan.scratch, training.scratch) + 8 * hidden;
    model_.allocate(plan, true);
  }

  void check_ids() const {
    for (const double id : ids_.data) {
      if (id >= 0 && id < double(vocab())) continue;
      throw Error(golden_.path() + ": input_ids holds " + std::to_string(int64_t(id)) +
                  ", the vocabulary has " + std::to_string(vocab()) + " entries");
    }
  }

  // Results that are stored as float32 of the float64 run can be met to their rounding only.
  double limit_of_f32(double tolerance, double largest) const {
    return exact_ ? 1e-6 * std::max(1.0, largest) : tolerance;
  }
  double limit(double tolerance) const { return exact_ ? 1e-9 : tolerance; }
  void add(GoldenRow row) {
    row.name += suffix_;
    rows_.push_back(std::move(row));
  }

  int64_t vocab() const { return foreign_.config.model.vocab_size; }
  Values expected_logits() const {
    return load(golden_, golden_.find("logits_f64") ? "logits_f64" : "logits",
                {batch_, length_, vocab()});
  }

  void forward() {
    Ids tokens = columns_of(ids_, 0, length_);
    Worst hidden;
    double largest = 0;
    const auto see = [&](const std::string& name, const Tensor& h) {
      const std::string stored = hidden_name(name);
      if (stored.empty() || !golden_.find(stored)) return;
      const Values expected = load(golden_, stored);
      largest = std::max(largest, expected.largest());
      hidden.add(largest_difference(read_tensor(h), expected.data), stored);
    };
    const Tensor logits = model_.logits({tokens.tensor(), {}, {}}, see);
    add(row_of("logits", largest_difference(read_tensor(logits), expected_logits().data),
               limit(limits_.logits)));
    if (!hidden.empty()) add(hidden.row("hidden states", limit_of_f32(limits_.logits, largest)));
  }

  // The stored name of what the stack shows after a block; "" inside of a foreign layer.
  std::string hidden_name(const std::string& shown) const {
    if (shown.empty() || shown[0] < '0' || shown[0] > '9') return "hidden." + shown;
    const int64_t blocks = std::stoll(shown) + 1;
    const auto& ends = foreign_.layer_ends;
    const auto found = std::find(ends.begin(), ends.end(), blocks);
    return found == ends.end() ? "" : "hidden." + std::to_string(found - ends.begin());
  }

  std::vector<int> open(Cache& cache) const {
    std::vector<int> sequences;
    for (int64_t i = 0; i < batch_; ++i) sequences.push_back(cache.open());
    return sequences;
  }
  Cache make_cache(int64_t tokens) const {
    return model_.make_cache({.sequences = batch_, .tokens = batch_ * (tokens + kPageTokens)});
  }

  int64_t prompt_length() const {
    const int64_t n = load(golden_, "prefill_logits", {batch_, -1, vocab()}).shape[1];
    if (n > length_) {
      throw Error(golden_.path() + ": prefill_logits has " + std::to_string(n) +
                  " positions, input_ids only " + std::to_string(length_));
    }
    return n;
  }

  void decode() {
    const Values prefill = load(golden_, "prefill_logits", {batch_, -1, vocab()});
    const int64_t n = prompt_length();
    Cache cache = make_cache(length_);
    const std::vector<int> sequences = open(cache);
    const Values full = expected_logits();
    const Values stepwise =
        n < length_ ? load(golden_, "decode_logits", {batch_, length_ - n, vocab()}) : Values{};

    Ids prompt = columns_of(ids_, 0, n);
    const std::vector<double> first =
        read_tensor(model_.extend(cache, sequences, prompt.tensor(), true));
    add(row_of("prefill logits",
               largest_difference(first, exact_ ? positions_of(full, 0, n) : prefill.data),
               limit(limits_.logits)));
    check_cache("cache after prefill", "cache_prefill.", cache, sequences);

    Worst steps;
    for (int64_t t = n; t < length_; ++t) {
      Ids token = columns_of(ids_, t, t + 1);
      const std::vector<double> logits =
          read_tensor(model_.extend(cache, sequences, token.tensor(), true));
      const std::vector<double> expected =
          exact_ ? positions_of(full, t, t + 1) : positions_of(stepwise, t - n, t - n + 1);
      steps.add(largest_difference(logits, expected), "position " + std::to_string(t));
    }
    if (!steps.empty()) add(steps.row("decode logits", limit(limits_.logits)));
    check_cache("cache at the end", "cache_end.", cache, sequences);
    if (n < length_) continuation(n);
  }

  // The prompt, then all the rest in one call that starts from the cache.
  void continuation(int64_t n) {
    Cache cache = make_cache(length_);
    const std::vector<int> sequences = open(cache);
    Ids prompt = columns_of(ids_, 0, n), rest = columns_of(ids_, n, length_);
    model_.extend(cache, sequences, prompt.tensor(), false);
    const Tensor logits = model_.extend(cache, sequences, rest.tensor(), true);
    const std::vector<double> expected = positions_of(expected_logits(), n, length_);
    add(row_of("logits of a second part", largest_difference(read_tensor(logits), expected),
               limit(limits_.logits)));
  }

  void check_cache(const std::string& name, const std::string& prefix, Cache& cache,
                   const std::vector<int>& sequences) {
    Worst worst;
    double largest = 0;
    for (const StoredTensor& tensor : golden_.tensors()) {
      if (!tensor.name.starts_with(prefix)) continue;
      const size_t dot = tensor.name.find('.', prefix.size());
      const std::string number = tensor.name.substr(prefix.size(), dot - prefix.size());
      if (dot == std::string::npos || number.empty() || number.size() > 6 ||
          number.find_first_not_of("0123456789") != std::string::npos) {
        throw Error(golden_.path() + ": tensor " + tensor.name + ": expected " + prefix +
                    "LAYER.NAME");
      }
      const size_t layer = std::stoul(number);
      const Values expected = load(golden_, tensor.name);
      largest = std::max(largest, expected.largest());
      const std::string what = tensor.name.substr(dot + 1);
      worst.add(cache_difference(model_, cache, sequences, blocks_of(layer), what, expected),
                tensor.name);
    }
    if (!worst.empty()) add(worst.row(name, limit_of_f32(limits_.logits, largest)));
  }

  // Our blocks [first, last) of a foreign layer.
  std::pair<size_t, size_t> blocks_of(size_t layer) const {
    const auto& ends = foreign_.layer_ends;
    if (layer >= ends.size()) {
      throw Error(golden_.path() + ": it names layer " + std::to_string(layer) +
                  ", the model has " + std::to_string(ends.size()));
    }
    return {layer ? size_t(ends[layer - 1]) : 0, size_t(ends[layer])};
  }

  void greedy() {
    const Values expected = load(golden_, "greedy_ids", {batch_, -1});
    const int64_t steps = expected.shape[1], n = prompt_length();
    Cache cache = make_cache(n + steps);
    const std::vector<int> sequences = open(cache);
    Ids next = columns_of(ids_, 0, n);
    Worst different;
    for (int64_t s = 0; s < steps; ++s) {
      const Tensor logits = model_.extend(cache, sequences, next.tensor(), false);
      const std::vector<double> values = read_tensor(logits);
      const int64_t vocab = logits.cols();
      next = {{}, batch_, 1};
      for (int64_t r = 0; r < batch_; ++r) {
        const auto row = values.begin() + r * vocab;
        const auto id = int32_t(std::max_element(row, row + vocab) - row);
        const auto wanted = int32_t(expected.data[size_t(r * steps + s)]);
        different.add(id == wanted ? 0 : 1,
                      "row " + std::to_string(r) + ", step " + std::to_string(s) + ": expected " +
                          std::to_string(wanted) + ", got " + std::to_string(id));
        next.data.push_back(id);
      }
    }
    GoldenRow row = different.row("greedy ids", 0);
    if (row.status == GoldenStatus::ok) row.note.clear();
    add(std::move(row));
  }

  // One forward and backward; the gradients are left in the parameters.
  double mean_loss_and_gradients(uint64_t step) {
    Ids tokens = columns_of(ids_, 0, length_), labels = labels_of(ids_);
    const double count = double(batch_ * (length_ - 1));
    model_.params().zero_grads();
    return model_.train({tokens.tensor(), labels.tensor(), {}}, 1 / count, step, 0).loss / count;
  }

  void gradients() {
    const double loss = mean_loss_and_gradients(0);
    add(row_of("loss", std::fabs(loss - load(golden_, "loss", {}).data[0]), limit(limits_.train)));
    Worst worst;
    for (const ForeignView& view : foreign_views(foreign_, model_.params())) {
      const StoredTensor* stored = golden_.find("grad." + view.name);
      if (!stored) continue;
      const Values expected = load(golden_, stored->name);
      Tensor grad = view.param->slot->grad;
      if (!grad) {
        worst.add(INFINITY, stored->name + " has no gradient here");
        continue;
      }
      grad.data = static_cast<char*>(grad.data) + view.begin * int64_t(size_of(grad.dtype));
      grad.shape = view.shape;
      grad.pitch = view.shape.cols();
      const double scale = std::max(expected.largest(), 1e-30);
      worst.add(largest_difference(read_tensor(grad), expected.data) / scale, stored->name);
    }
    check_all_gradients_known();
    if (!worst.empty()) add(worst.row("gradients", exact_ ? 1e-6 : limits_.grad));
  }

  // Every stored gradient must belong to a tensor of the model.
  void check_all_gradients_known() const {
    std::vector<std::string> names;
    for (const ForeignView& view : foreign_views(foreign_, model_params())) {
      names.push_back("grad." + view.name);
    }
    for (const StoredTensor& tensor : golden_.tensors()) {
      if (!tensor.name.starts_with("grad.")) continue;
      if (std::find(names.begin(), names.end(), tensor.name) == names.end()) {
        throw Error(golden_.path() + ": the model has no tensor for " + tensor.name);
      }
    }
  }
  const ParamStore& model_params() const { return const_cast<Model&>(model_).params(); }

  // Five steps of AdamW on the one batch, every tensor decayed; the last row of losses is after.
  void train() {
    const Values losses = load(golden_, "train.losses", {-1});
    const Values norms = load(golden_, "train.grad_norms", {int64_t(losses.data.size()) - 1});
    AdamW optimizer(
        model_.params(),
        {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .decay_all = true});
    Worst loss_errors, norm_errors;
    for (size_t s = 0; s < losses.data.size(); ++s) {
      const double loss = mean_loss_and_gradients(s);
      loss_errors.add(std::fabs(loss - losses.data[s]), "step " + std::to_string(s));
      if (s >= norms.data.size()) break;
      const double norm = optimizer.grad_norm(model_.context());
      norm_errors.add(std::fabs(norm / norms.data[s] - 1), "step " + std::to_string(s));
      optimizer.step(model_.context(), 1e-3, 1);
    }
    add(loss_errors.row("training losses", limit(limits_.train)));
    add(norm_errors.row("gradient norms", limit(limits_.train)));
  }

  const ForeignModel& foreign_;
  Safetensors golden_;
  TensorFiles files_;
  Tolerances limits_;
  bool exact_;
  std::string suffix_;
  Values ids_;
  Model model_;
  int64_t batch_ = 0, length_ = 0;
  std::vector<GoldenRow> rows_;
};

// What the build lacks for this model; "" if nothing.
std::string missing_plugin(const ForeignModel& foreign, LayerFactory& factory) {
  for (const auto& [symbol, plugin] : foreign.plugins) {
    try {
      factory.name_of(symbol);
    } catch (const Error&) {
      return "plugin " + plugin;
    }
  }
  return "";
}

}  // namespace

std::vector<GoldenRow> check_model(const std::string& folder, LayerFactory& factory) {
  ForeignModel foreign;
  try {
    foreign = read_foreign_config(folder + "/config.json");
  } catch (const Error& error) {
    return {failed("config", error.what())};
  }
  if (!foreign.needs.empty()) return {skipped("model", "needs " + foreign.needs.front())};
  if (const std::string plugin = missing_plugin(foreign, factory); !plugin.empty()) {
    return {skipped("model", "needs " + plugin)};
  }
  std::vector<GoldenRow> rows;
  if (const std::string other = folder + "/config_hf5.json"; std::filesystem::exists(other)) {
    try {
      const bool same = to_toml(read_foreign_config(other).config) == to_toml(foreign.config);
      rows.push_back(row_of("config_hf5.json says the same", same ? 0 : 1, 0));
    } catch (const Error& error) {
      rows.push_back(failed("config_hf5.json", error.what()));
    }
  }
  for (const DType dtype : {DType::f32, DType::f64}) {
    try {
      const std::vector<GoldenRow> more = ModelCheck(folder, foreign, factory, dtype).run();
      rows.insert(rows.end(), more.begin(), more.end());
    } catch (const Error& error) {
      rows.push_back(failed(std::string("model ") + name_of(dtype), error.what()));
    }
  }
  return rows;
}

}  // namespace strata::golden
