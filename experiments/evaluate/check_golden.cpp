#include "experiments/evaluate/check_golden.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iomanip>
#include <ostream>
#include <sstream>

#include "core/io/json.h"
#include "experiments/evaluate/golden_checks.h"

namespace strata {

namespace fs = std::filesystem;

namespace {

bool is_model(const fs::path& folder) {
  return fs::exists(folder / "golden.safetensors") || fs::exists(folder / "golden.json");
}
bool is_adapter(const fs::path& folder) { return fs::exists(folder / "adapter_config.json"); }
bool is_ops(const fs::path& folder) { return !golden::op_names(folder.string()).empty(); }
bool is_golden(const fs::path& folder) {
  return is_model(folder) || is_adapter(folder) || is_ops(folder);
}

constexpr int kMaxDepth = 4;  // of golden folders below a given one

void find_inside(const fs::path& folder, int depth, std::vector<std::string>& found) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (!entry.is_directory()) continue;
    if (is_golden(entry.path())) {
      found.push_back(entry.path().string());
    } else if (depth < kMaxDepth) {
      find_inside(entry.path(), depth + 1, found);
    }
  }
}

// The folder itself, or the golden folders in it. Throws Error if there are none.
std::vector<std::string> expand(const std::string& folder) {
  if (!fs::exists(folder)) throw Error(folder + ": there is no such folder");
  if (!fs::is_directory(folder)) throw Error(folder + ": expected a folder, got a file");
  if (is_golden(folder)) return {folder};
  std::vector<std::string> inner;
  find_inside(folder, 1, inner);
  if (inner.empty()) {
    throw Error(folder +
                ": expected config.json, model.safetensors and golden.safetensors, or operators "
                "NAME.safetensors with NAME.json, here or in its folders");
  }
  std::sort(inner.begin(), inner.end());
  return inner;
}

const char* word(GoldenStatus status) {
  switch (status) {
    case GoldenStatus::ok:
      return "ok";
    case GoldenStatus::failed:
      return "FAILED";
    case GoldenStatus::skipped:
      return "skipped";
    case GoldenStatus::refused:
      break;
  }
  return "REFUSED";
}

std::string scientific(double value) {
  if (!std::isfinite(value)) return "not a number";
  std::ostringstream text;
  text << std::scientific << std::setprecision(1) << value;
  return text.str();
}

void print(const GoldenReport& report, std::ostream& out) {
  out << report.folder << '\n';
  for (const GoldenRow& row : report.rows) {
    out << "  " << std::left << std::setw(34) << row.name;
    if (row.status == GoldenStatus::skipped || row.status == GoldenStatus::refused) {
      out << ' ' << word(row.status) << ": " << row.note << '\n';
      continue;
    }
    out << " error " << std::setw(8) << scientific(row.error) << "  tolerance " << std::setw(8)
        << scientific(row.tolerance) << "  " << std::setw(6) << word(row.status);
    if (!row.note.empty()) out << "  " << row.note;
    out << '\n';
  }
}

Json json_of(const GoldenReport& report) {
  Json rows = Json::array();
  for (const GoldenRow& row : report.rows) {
    Json json = Json::object();
    json.set("name", row.name).set("status", word(row.status));
    if (row.status == GoldenStatus::ok || row.status == GoldenStatus::failed) {
      json.set("error", std::isfinite(row.error) ? Json(row.error) : Json());
      json.set("tolerance", row.tolerance);
    }
    if (!row.note.empty()) json.set("note", row.note);
    rows.push(std::move(json));
  }
  return Json::object().set("folder", report.folder).set("rows", std::move(rows));
}

}  // namespace

int GoldenReport::count(GoldenStatus status) const {
  return int(std::count_if(rows.begin(), rows.end(),
                           [&](const GoldenRow& row) { return row.status == status; }));
}

GoldenReport check_golden(const std::string& folder, LayerFactory& factory, Device device) {
  if (is_adapter(folder)) return {folder, {golden::skipped("adapter", "needs LoRA adapters")}};
  if (is_model(folder)) return {folder, golden::check_model(folder, factory, device)};
  if (is_ops(folder) && device.kind != DeviceKind::cpu)
    return {folder, {golden::skipped("operators", "they are checked on the CPU")}};
  if (is_ops(folder)) return {folder, golden::check_ops(folder, factory)};
  throw Error(folder +
              ": expected config.json, model.safetensors and golden.safetensors, or operators");
}

int run_check_golden(const std::vector<std::string>& folders, LayerFactory& factory,
                     const GoldenOptions& options, std::ostream& out) {
  // A path that is no golden folder does not keep the others from being checked.
  std::vector<std::string> all;
  std::vector<GoldenReport> wrong;
  for (const std::string& folder : folders) {
    // `golden/*` names the notes beside the folders too.
    if (folders.size() > 1 && std::filesystem::is_regular_file(folder)) {
      wrong.push_back({folder, {golden::skipped("folder", "a file, not a golden folder")}});
      continue;
    }
    try {
      for (const std::string& inner : expand(folder)) all.push_back(inner);
    } catch (const Error& error) {
      wrong.push_back({folder, {golden::refused("folder", error.what())}});
    }
  }
  if (all.empty() && !wrong.empty()) throw Error(wrong.front().rows.front().note);

  int passed = 0, failed = 0, skipped = 0, refused = 0;
  Json reports = Json::array();
  const auto add = [&](const GoldenReport& report) {
    passed += report.count(GoldenStatus::ok);
    failed += report.count(GoldenStatus::failed);
    skipped += report.count(GoldenStatus::skipped);
    refused += report.count(GoldenStatus::refused);
    if (options.json) {
      reports.push(json_of(report));
    } else {
      print(report, out);
    }
  };
  for (const GoldenReport& report : wrong) add(report);
  for (const std::string& folder : all) add(check_golden(folder, factory, options.device));
  if (options.json) {
    Json json = Json::object();
    json.set("folders", std::move(reports)).set("passed", passed);
    out << json.set("failed", failed + refused).set("skipped", skipped).dump(1) << '\n';
  } else {
    out << passed << " passed, " << failed + refused << " failed, " << skipped << " skipped\n";
  }
  if (refused > 0) return 2;
  return failed > 0 || (options.strict && skipped > 0) ? 1 : 0;
}

}  // namespace strata
