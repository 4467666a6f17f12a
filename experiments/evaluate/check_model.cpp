// Golden checks of a model folder: what is loaded, and the full forward.
#include <algorithm>
#include <filesystem>
#include <sstream>

#include "core/tensor/device.h"
#include "experiments/evaluate/golden_checks.h"
#include "experiments/evaluate/model_check.h"

namespace strata::golden {

namespace {

Config config_for(const ForeignModel& foreign, DType dtype) {
  Config config = foreign.config;
  config.model.dtype = name_of(dtype);
  return config;
}

}  // namespace

ModelCheck::ModelCheck(const std::string& folder, const ForeignModel& foreign,
                       LayerFactory& factory, DType dtype, std::vector<GoldenRow>& rows)
    : foreign_(foreign),
      golden_(folder + "/golden.safetensors"),
      files_(folder),
      settings_(read_settings(folder)),
      limits_(settings_.tolerances),
      exact_(dtype == DType::f64),
      half_(dtype == DType::bf16),
      suffix_(std::string(" ") + name_of(dtype)),
      ids_(load(golden_, "input_ids", {-1, -1}, Stored::integers)),
      model_(config_for(foreign, dtype), factory),
      rows_(rows) {
  batch_ = ids_.shape[0];
  length_ = ids_.shape[1];
  check_ids();
  // Two bytes may be as far from the float64 run as twice the reference's own two bytes are.
  if (half_) limits_.logits = 2 * settings_.half.largest;
  allocate();
  load_tensors(foreign_, files_, model_.params());
}

void ModelCheck::run() {
  const size_t before = rows_.size();
  forward();
  if (half_ && !has("logits_f64")) return;
  if (has("prefill_logits") || has_any("cache_")) decode();
  if (half_) return;
  if (has("greedy_ids")) greedy();
  if (rows_.size() == before && !has("loss") && !has_any("grad.") && !has("train.losses")) {
    throw Error(golden_.path() + ": there is nothing to compare with; expected logits_f64, " +
                "prefill_logits, greedy_ids, loss, ... beside input_ids");
  }
  if (exact_) written_back();
  if (has("loss") || has_any("grad.")) gradients();
  if (has("train.losses")) train();
}

void ModelCheck::allocate() {
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

void ModelCheck::check_ids() const {
  for (const double id : ids_.data) {
    if (id >= 0 && id < double(vocab())) continue;
    throw Error(golden_.path() + ": input_ids holds " + std::to_string(int64_t(id)) +
                ", the vocabulary has " + std::to_string(vocab()) + " entries");
  }
}

double ModelCheck::limit_of_f32(double tolerance, double largest) const {
  return exact_ ? 1e-6 * std::max(1.0, largest) : tolerance;
}

void ModelCheck::add(GoldenRow row) {
  row.name += suffix_;
  rows_.push_back(std::move(row));
}

bool ModelCheck::has_any(const std::string& prefix) const {
  const auto& all = golden_.tensors();
  return std::any_of(all.begin(), all.end(),
                     [&](const StoredTensor& t) { return t.name.starts_with(prefix); });
}

// Every tensor of the file, converted back from the parameters, must have its bytes again.
void ModelCheck::written_back() {
  Worst different;
  for (const StoredTensor& tensor : foreign_tensors(foreign_, model_.params(), &files_).tensors) {
    const StoredTensor& old = *files_.find(tensor.name);
    const bool same = tensor.dtype == old.dtype && tensor.bytes == old.bytes &&
                      std::equal(static_cast<const char*>(old.data),
                                 static_cast<const char*>(old.data) + old.bytes,
                                 static_cast<const char*>(tensor.data));
    different.add(same ? 0 : 1, tensor.name);
  }
  GoldenRow row = different.row("weights written back", 0);
  if (row.status == GoldenStatus::ok) row.note.clear();
  add(std::move(row));
}

// The float64 run is compared with logits_f64; what is stored from a float32 run has that run's own
// error, whatever is compared with it.
ModelCheck::Expected ModelCheck::expected_logits() const {
  const std::vector<int64_t> shape = {batch_, length_, vocab()};
  if (has("logits_f64")) {
    return {load(golden_, "logits_f64", shape, Stored::f64), limit(limits_.logits)};
  }
  return has("logits") ? Expected{load(golden_, "logits", shape), limits_.logits} : Expected{};
}

ModelCheck::Expected ModelCheck::expected_logits(const std::string& name, int64_t first,
                                                 int64_t end) const {
  Expected own;
  if (has(name)) own = {load(golden_, name, {batch_, end - first, vocab()}), limits_.logits};
  if (own.is_known() && !((exact_ || half_) && has("logits_f64"))) return own;
  const Expected all = expected_logits();
  if (!all.is_known()) return all;
  return {{positions_of(all.values, first, end), {batch_, end - first, vocab()}}, all.limit};
}

void ModelCheck::forward() {
  Ids tokens = columns_of(ids_, 0, length_);
  Worst hidden;
  int64_t n_hidden = 0;
  for (const StoredTensor& t : golden_.tensors()) n_hidden += t.name.starts_with("hidden.");
  double largest = 0;
  const auto see = [&](const std::string& name, const Tensor& h) {
    const std::string stored = hidden_name(name);
    if (stored.empty() || !has(stored)) return;
    const Values expected = load(golden_, stored, {batch_, length_, foreign_.config.model.d_model});
    largest = std::max(largest, expected.largest());
    hidden.add(largest_difference(numbers_of(h), expected.data), stored);
  };
  const Tensor logits = model_.logits({tokens.tensor(), {}, {}}, half_ ? Model::SeeHidden{} : see);
  const Expected expected = expected_logits();
  if (expected.is_known()) {
    const std::vector<double> got = numbers_of(logits);
    add(row_of("logits", largest_difference(got, expected.values.data), expected.limit));
    if (half_) {
      add(row_of("logits on average", mean_difference(got, expected.values.data),
                 2 * settings_.half.mean));
    }
  }
  if (!half_ && hidden.count() != n_hidden) {
    throw Error(golden_.path() + ": it has " + std::to_string(n_hidden) +
                " tensors hidden.*; expected hidden.embed, hidden.0 to hidden." +
                std::to_string(foreign_.layer_ends.size() - 1) + " and hidden.final");
  }
  if (!hidden.empty()) add(hidden.row("hidden states", limit_of_f32(limits_.logits, largest)));
}

// The stored name of what the stack shows after a block; "" inside of a foreign layer.
std::string ModelCheck::hidden_name(const std::string& shown) const {
  if (shown.empty() || shown[0] < '0' || shown[0] > '9') return "hidden." + shown;
  const int64_t blocks = std::stoll(shown) + 1;
  const auto& ends = foreign_.layer_ends;
  const auto found = std::find(ends.begin(), ends.end(), blocks);
  return found == ends.end() ? "" : "hidden." + std::to_string(found - ends.begin());
}

namespace {

// The first line that two texts do not share: "n_groups = 8, there n_groups = 4".
std::string first_difference(const std::string& here, const std::string& there) {
  std::istringstream a(here), b(there);
  std::string x, y;
  while (true) {
    const bool more_a = bool(std::getline(a, x)), more_b = bool(std::getline(b, y));
    if (!more_a && !more_b) return "";
    if (more_a && more_b && x == y) continue;
    return (more_a ? x : "nothing more") + ", there " + (more_b ? y : "nothing more");
  }
}

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

std::vector<GoldenRow> check_model(const std::string& folder, LayerFactory& factory,
                                   Device device) {
  ForeignModel foreign;
  try {
    foreign = read_foreign_config(folder + "/config.json");
    foreign.config.model.device = to_string(device);
  } catch (const Error& error) {
    return {refused("config", error.what())};
  }
  if (!foreign.needs.empty()) return {skipped("model", "needs " + foreign.needs.front())};
  if (const std::string plugin = missing_plugin(foreign, factory); !plugin.empty()) {
    return {skipped("model", "needs " + plugin)};
  }
  std::vector<GoldenRow> rows;
  if (const std::string other = folder + "/config_hf5.json"; std::filesystem::exists(other)) {
    try {
      ForeignModel again = read_foreign_config(other);
      again.config.model.device = foreign.config.model.device;
      const std::string differing =
          first_difference(to_toml(foreign.config), to_toml(again.config));
      rows.push_back(
          row_of("config_hf5.json says the same", differing.empty() ? 0 : 1, 0, differing));
    } catch (const Error& error) {
      rows.push_back(refused("config_hf5.json", error.what()));
    }
  }
  try {
    for (const DType dtype : {DType::f32, DType::f64}) {
      ModelCheck(folder, foreign, factory, dtype, rows).run();
    }
    if (device.kind != DeviceKind::cpu && read_settings(folder).half.largest > 0)
      ModelCheck(folder, foreign, factory, DType::bf16, rows).run();
  } catch (const Error& error) {
    rows.push_back(refused("model", error.what()));
  }
  return rows;
}

}  // namespace strata::golden
