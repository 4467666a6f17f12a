#include "experiments/evaluate/golden_settings.h"

#include <cmath>
#include <filesystem>

#include "core/io/json.h"

namespace strata::golden {

Settings read_settings(const std::string& folder) {
  Settings settings;
  const std::string path = folder + "/golden.json";
  if (!std::filesystem::exists(path)) return settings;
  const Json json = read_json(path);
  json.as_object(path);
  const auto take = [&](const Json* table, const char* key, double& to) {
    const Json* value = table ? table->find(key) : nullptr;
    if (!value) return;
    to = value->as_double(path + ": " + key);
    if (!(to >= 0) || !std::isfinite(to)) {
      throw Error(path + ": " + key + " must be a finite number of at least 0, got " +
                  value->describe());
    }
  };
  const Json* tolerance = json.find("suggested_tolerance");
  take(tolerance, "logits_abs", settings.tolerances.logits);
  take(tolerance, "grad_rel_to_tensor_max", settings.tolerances.grad);
  take(tolerance, "train_loss_abs", settings.tolerances.train);
  take(&json, "bf16_vs_f64_logits_maxabs", settings.half.largest);
  take(&json, "bf16_vs_f64_logits_meanabs", settings.half.mean);
  const Json* train = json.find("train");
  take(train, "lr", settings.train.lr);
  take(train, "eps", settings.train.eps);
  take(train, "weight_decay", settings.train.weight_decay);
  if (const Json* betas = train ? train->find("betas") : nullptr) {
    const auto& pair = betas->as_array(path + ": betas");
    if (pair.size() != 2) {
      throw Error(path + ": betas must be two numbers, got " + std::to_string(pair.size()));
    }
    settings.train.beta1 = pair[0].as_double(path + ": betas");
    settings.train.beta2 = pair[1].as_double(path + ": betas");
  }
  if (const Json* prefill = json.find("prefill")) {
    settings.prefill = prefill->as_int(path + ": prefill");
    if (settings.prefill < 1) {
      throw Error(path + ": prefill must be at least 1, got " + std::to_string(settings.prefill));
    }
  }
  return settings;
}

}  // namespace strata::golden
