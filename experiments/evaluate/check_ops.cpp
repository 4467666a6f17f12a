// Golden checks of a folder of operators.
#include <algorithm>
#include <filesystem>

#include "core/ops/named_op.h"
#include "experiments/evaluate/golden_checks.h"
#include "experiments/evaluate/op_checks.h"

namespace strata::golden {

namespace fs = std::filesystem;

namespace {

struct OpCheck {
  const char* name;
  void (*run)(OpCase&);
  const char* symbol = "";    // the plugin that must be loaded first, by its symbol
  const char* named_op = "";  // the operation that it brings
  bool is_scan = false;
};

constexpr OpCheck kChecks[] = {
    {"activations", check_activations},
    {"norms", check_norms},
    {"attention", check_attention},
    {"causal_conv1d", check_causal_conv1d},
    {"rope", check_rope},
    {"cross_entropy", check_cross_entropy},
    {"adamw", check_adamw},
    {"ssd_scan", check_ssd_scan, "M", "ssd_scan", true},
    {"moe", check_moe, "E"},
};

const OpCheck* find_check(const std::string& name) {
  for (const OpCheck& check : kChecks) {
    if (name == check.name) return &check;
  }
  return nullptr;
}

// Why an operator cannot be checked; "" if it can.
std::string lacking(const OpCheck* check, const std::string& name, LayerFactory& factory) {
  if (!check) return "needs operator " + name;
  if (!*check->symbol) return "";
  try {
    factory.create(check->symbol, LayerConfig(64, 1, {}, name));  // loads the plugin
  } catch (const Error&) {
    return "needs operator " + name;
  }
  return !*check->named_op || find_named_op(check->named_op) ? "" : "needs operator " + name;
}

}  // namespace

std::vector<std::string> op_names(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() != ".safetensors") continue;
    const fs::path about = fs::path(entry.path()).replace_extension(".json");
    if (fs::exists(about)) names.push_back(entry.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

namespace {

bool describes_op(const fs::path& path) {
  try {
    return read_json(path.string()).find("op") != nullptr;
  } catch (const Error&) {
    return false;
  }
}

// Tensors without a description, and descriptions of an operator without tensors.
std::vector<GoldenRow> halves(const std::string& folder) {
  std::vector<GoldenRow> rows;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const fs::path path = entry.path();
    fs::path other = path;
    if (path.extension() == ".safetensors") {
      other.replace_extension(".json");
    } else if (path.extension() == ".json") {
      other.replace_extension(".safetensors");
    }
    if (other == path || fs::exists(other)) continue;
    if (path.extension() == ".json" && !describes_op(path)) continue;
    rows.push_back(refused(path.stem().string(), path.string() + ": expected " +
                                                     other.filename().string() + " beside it"));
  }
  std::sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return rows;
}

}  // namespace

std::vector<GoldenRow> check_ops(const std::string& folder, LayerFactory& factory) {
  std::vector<GoldenRow> rows = halves(folder);
  for (const std::string& file_name : op_names(folder)) {
    const std::string path = folder + "/" + file_name;
    std::string name = file_name;
    try {
      const Json about = read_json(path + ".json");
      name = about.at("op", path + ".json").as_string(path + ".json: op");
      const OpCheck* check = find_check(name);
      if (const std::string reason = lacking(check, name, factory); !reason.empty()) {
        rows.push_back(skipped(name, reason));
        continue;
      }
      const Safetensors file(path + ".safetensors");
      for (const DType dtype : {DType::f32, DType::f64}) {
        OpCase c(file, about, dtype, factory);
        check->run(c);
        for (GoldenRow& row : c.rows(name, check->is_scan)) rows.push_back(std::move(row));
      }
    } catch (const Error& error) {
      rows.push_back(refused(name, error.what()));
    }
  }
  return rows;
}

}  // namespace strata::golden
