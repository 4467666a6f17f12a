// check-golden on folders that are right and hold less, more or other things than the stored ones.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <sstream>

#include "core/io/file.h"
#include "core/io/json.h"
#include "core/io/safetensors.h"
#include "core/tensor/convert.h"
#include "experiments/evaluate/check_golden.h"
#include "plugins/host/registry.h"
#include "tests/support/golden_folder.h"
#include "tests/support/temp_folder.h"

using namespace strata;
using namespace strata::test;

namespace {

std::map<std::string, GoldenRow> rows_of(const TempFolder& folder) {
  Registry layers;
  std::map<std::string, GoldenRow> rows;
  for (const GoldenRow& row : check_golden(folder.path(), layers).rows) {
    CAPTURE(row.note);
    CHECK(row.status != GoldenStatus::refused);
    rows[row.name] = row;
  }
  return rows;
}

StoredTensor doubles(const char* name, std::vector<int64_t> shape,
                     const std::vector<double>& data) {
  return {name, DType::f64, std::move(shape), data.data(), data.size() * sizeof(double)};
}

}  // namespace

TEST_CASE("check-golden: what a folder does not hold is not asked for") {
  // What is left out, and a row that must still be there and right.
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"decode_logits"}, "decode logits f32"},
      {{"prefill_logits"}, "greedy ids f64"},
      {{"prefill_logits", "cache_"}, "greedy ids f32"},
      {{"logits_f64"}, "logits f64"},
      {{"logits", "hidden."}, "prefill logits f64"},
      {{"loss"}, "gradients f64"},
      {{"train.grad_norms"}, "training losses f64"},
      {{"grad.", "cache_", "greedy_ids", "train."}, "loss f64"}};
  for (const auto& [without, row] : cases) {
    CAPTURE(row);
    const TempFolder folder;
    copy_golden("bamba", folder);
    edit_golden(folder, [&, &names = without](const StoredTensor& tensor) {
      return std::none_of(names.begin(), names.end(),
                          [&](const std::string& n) { return tensor.name.starts_with(n); });
    });
    const auto rows = rows_of(folder);
    REQUIRE(rows.count(row) == 1);
    for (const auto& [name, r] : rows) {
      CAPTURE(name);
      CHECK(r.status == GoldenStatus::ok);
    }
  }
}

TEST_CASE("check-golden: the training run is the one that golden.json describes") {
  const TempFolder folder;
  copy_golden("llama", folder);
  Json json = read_json(folder / "golden.json");
  json.set("train", Json(json.at("train", "json")).set("lr", 1.1e-3));
  folder.write("golden.json", json.dump());
  const auto rows = rows_of(folder);
  CHECK(rows.at("training losses f64").status == GoldenStatus::failed);
  CHECK(rows.at("gradients f64").status == GoldenStatus::ok);
}

TEST_CASE("check-golden: weights in 16 bits are read and written back unchanged") {
  for (const DType type : {DType::bf16, DType::f16}) {
    const TempFolder folder;
    copy_golden("nemotron_h", folder);
    std::vector<std::vector<char>> narrow;
    edit_golden(
        folder,
        [&](StoredTensor& tensor) {
          const size_t count = tensor.bytes / size_of(tensor.dtype);
          narrow.emplace_back(count * size_of(type));
          convert_numbers(tensor.data, tensor.dtype, narrow.back().data(), type, count);
          tensor.dtype = type;
          tensor.data = narrow.back().data();
          tensor.bytes = narrow.back().size();
          return true;
        },
        "model.safetensors");
    const auto rows = rows_of(folder);
    CHECK(rows.at("weights written back f64").status == GoldenStatus::ok);
    // Near the reference, which has the weights in 32 bits.
    CHECK(rows.at("loss f32").error < 0.1);
  }
}

TEST_CASE("check-golden: gradients that are zero but for rounding are measured by the others") {
  // One token sees one key: y = v, and neither q nor k matters.
  const TempFolder folder;
  const std::vector<double> q = {0.3, -1.2, 0.7, 0.1}, k = {1.1, 0.4, -0.6, 2.0};
  const std::vector<double> v = {0.9, -0.8, 0.25, 1.5}, dy = {0.37, -0.61, 1.3, 0.77};
  const std::vector<double> none(4, 0.0);
  const std::vector<int64_t> shape = {1, 1, 1, 4};
  write_safetensors(
      folder / "attention.safetensors",
      {doubles("in.q", shape, q), doubles("in.k", shape, k), doubles("in.v", shape, v),
       doubles("y", shape, v), doubles("cotangent.y", shape, dy), doubles("grad.q", shape, none),
       doubles("grad.k", shape, none), doubles("grad.v", shape, dy)});
  folder.write("attention.json", R"({"op": "attention", "variants": {"": "causal"}})");
  const auto rows = rows_of(folder);
  CHECK(rows.size() == 4);
  for (const auto& [name, row] : rows) {
    CAPTURE(name);
    CHECK(row.status == GoldenStatus::ok);
  }
}

TEST_CASE("check-golden: operators with some of the variants, and with one that nobody knows") {
  const TempFolder folder;
  for (const char* name : {"norms", "attention"}) {
    const std::string file = std::string(name) + ".safetensors";
    std::filesystem::copy(kGolden + "ops/" + file, folder / file);
    folder.write(std::string(name) + ".json", read_file(kGolden + "ops/" + name + ".json"));
  }
  edit_golden(
      folder,
      [](const StoredTensor& t) { return t.name.starts_with("in.") || t.name.starts_with("rms"); },
      "norms.safetensors");
  edit_golden(
      folder,
      [](StoredTensor& t) {
        if (t.name == "window.y") t.name = "sinks.y";
        return t.name != "tail.grad.q";
      },
      "attention.safetensors");
  const auto rows = rows_of(folder);
  CHECK(rows.at("norms f64").note.starts_with("worst of 2: rmsnorm"));
  CHECK(rows.at("norms f64").status == GoldenStatus::ok);
  CHECK(rows.at("attention f64").status == GoldenStatus::skipped);
  CHECK(rows.at("attention f64").note == "needs a check of the variant sinks.y");
}

TEST_CASE("check-golden: z-loss and load-balancing loss are compared") {
  const std::pair<const char*, const char*> cases[] = {{"cross_entropy", "z_loss"},
                                                       {"cross_entropy", "z_loss.grad.logits"},
                                                       {"moe", "aux_loss"},
                                                       {"moe", "aux_loss.grad.router_logits"}};
  for (const auto& [op, victim] : cases) {
    CAPTURE(victim);
    const TempFolder folder;
    const std::string file = std::string(op) + ".safetensors";
    std::filesystem::copy(kGolden + "ops/" + file, folder / file);
    folder.write(std::string(op) + ".json", read_file(kGolden + "ops/" + op + ".json"));
    std::vector<double> wrong;
    edit_golden(
        folder,
        [&, &name = victim](StoredTensor& tensor) {
          if (tensor.name != name) return true;
          wrong = values_of(tensor);
          wrong[0] += 1e-3;
          tensor.data = wrong.data();
          return true;
        },
        file);
    const bool is_gradient = std::strchr(victim, '.') != nullptr;
    const auto rows = rows_of(folder);
    CHECK(rows.at(op + std::string(is_gradient ? " gradients f64" : " f64")).status ==
          GoldenStatus::failed);
  }
}
