// check-golden on folders that are not as they must be: one sentence, exit code 2, never a crash.
#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <sstream>

#include "core/io/file.h"
#include "core/io/json.h"
#include "core/io/safetensors.h"
#include "experiments/evaluate/check_golden.h"
#include "plugins/host/registry.h"
#include "tests/support/error_text.h"
#include "tests/support/golden_folder.h"
#include "tests/support/temp_folder.h"

using namespace strata;
using namespace strata::test;

namespace {

// The rows of a folder after `change` was done to it, and the one that was refused.
struct Outcome {
  int exit_code = 0;
  std::string refusal;  // of the only refused row
};
Outcome outcome(const std::string& golden, const std::function<void(const TempFolder&)>& change) {
  Registry layers;
  const TempFolder folder;
  copy_golden(golden, folder);
  change(folder);
  const GoldenReport report = check_golden(folder.path(), layers);
  CHECK(report.count(GoldenStatus::refused) <= 1);
  Outcome out;
  for (const GoldenRow& row : report.rows) {
    if (row.status == GoldenStatus::refused) out.refusal = row.note;
  }
  std::ostringstream text;
  out.exit_code = run_check_golden({folder.path()}, layers, {}, text);
  return out;
}

}  // namespace

TEST_CASE("check-golden: a path that is no golden folder is refused, the others are checked") {
  Registry layers;
  const TempFolder folder;
  CHECK(error_text([&] { check_golden(folder.path(), layers); }).find("expected config.json") !=
        std::string::npos);
  std::ostringstream out;
  CHECK(error_text([&] {
          run_check_golden({folder / "none"}, layers, {}, out);
        }).ends_with("there is no such folder"));
  folder.write("README.md", "");
  CHECK(error_text([&] {
          run_check_golden({folder / "README.md"}, layers, {}, out);
        }).find("README.md: expected a folder, got a file") != std::string::npos);
  CHECK(run_check_golden({folder / "none", kGolden + "llama"}, layers, {}, out) == 2);
  CHECK(out.str().ends_with(" passed, 1 failed, 0 skipped\n"));
  CHECK(run_check_golden({folder / "README.md", kGolden + "llama"}, layers, {}, out) == 0);
  CHECK(out.str().ends_with(" passed, 0 failed, 1 skipped\n"));
}

TEST_CASE("check-golden: golden folders are found in folders of folders") {
  Registry layers;
  const TempFolder folder;
  for (const char* name : {"a/deep/mamba2", "b/ops"}) {
    std::filesystem::create_directories(folder / name);
  }
  for (const char* file : {"config.json", "golden.json", "golden.safetensors"}) {
    std::filesystem::copy(kGolden + "mamba2/" + file,
                          folder / ("a/deep/mamba2/" + std::string(file)));
  }
  for (const char* file : {"norms.json", "norms.safetensors", "rope.json", "moe.safetensors"}) {
    std::filesystem::copy(kGolden + "ops/" + file, folder / ("b/ops/" + std::string(file)));
  }
  std::ostringstream out;
  CHECK(run_check_golden({folder.path()}, layers, {}, out) == 2);
  // The weights, the description of moe and the tensors of rope are missing.
  CHECK(out.str().find("expected model.safetensors or model.safetensors.index.json") !=
        std::string::npos);
  CHECK(out.str().find("moe.safetensors: expected moe.json beside it") != std::string::npos);
  CHECK(out.str().find("rope.json: expected rope.safetensors beside it") != std::string::npos);
  CHECK(out.str().find(" 3 failed, 0 skipped\n") != std::string::npos);
}

TEST_CASE("check-golden: files of a model that are missing or damaged") {
  const auto says = [](const Outcome& got, const char* part) {
    CAPTURE(got.refusal);
    CHECK(got.exit_code == 2);
    CHECK(got.refusal.find(part) != std::string::npos);
  };
  for (const char* file : {"config.json", "golden.safetensors", "model.safetensors"}) {
    CAPTURE(file);
    says(outcome("mamba2", [&](const TempFolder& f) { std::filesystem::remove(f / file); }), file);
  }
  says(outcome("mamba2", [](const TempFolder& f) { f.write("golden.json", "{\"a\": "); }),
       "golden.json: line 1, byte 6: expected a value");
  says(outcome("mamba2", [](const TempFolder& f) { f.write("config.json", "{"); }),
       "config.json: line 1");
  says(outcome("mamba2",
               [](const TempFolder& f) {
                 f.write("golden.json", "{\"suggested_tolerance\": {\"logits_abs\": Infinity}}");
               }),
       "logits_abs must be a finite number of at least 0, got Infinity");
}

TEST_CASE("check-golden: stored tensors of a wrong type or with a value that is no number") {
  const auto with = [](const char* name, auto edit) {
    return outcome("mamba2", [&](const TempFolder& folder) {
      std::vector<double> values;
      edit_golden(folder, [&](StoredTensor& tensor) {
        if (tensor.name != name) return true;
        values = values_of(tensor);
        edit(tensor, values);
        return true;
      });
    });
  };
  for (const char* name : {"logits_f64", "loss"}) {
    CAPTURE(name);
    const Outcome got = with(name, [](StoredTensor& tensor, std::vector<double>& values) {
      values[0] = NAN;
      tensor.data = values.data();
    });
    CHECK(got.exit_code == 2);
    CHECK(got.refusal.find(std::string(name) + ": expected finite values, got nan at element 0") !=
          std::string::npos);
  }
  const Outcome ids = with("input_ids", [](StoredTensor& tensor, std::vector<double>& values) {
    tensor.dtype = DType::f64;
    tensor.data = values.data();
  });
  CHECK(ids.exit_code == 2);
  CHECK(ids.refusal.ends_with("tensor input_ids: expected integers (I64 or I32), got F64"));
  const Outcome hidden = outcome("mamba2", [](const TempFolder& folder) {
    edit_golden(folder, [](StoredTensor& tensor) {
      if (tensor.name == "hidden.1") tensor.name = "hidden.7";
      return true;
    });
  });
  CHECK(hidden.refusal.find("expected hidden.embed, hidden.0 to hidden.1") != std::string::npos);
}

TEST_CASE("check-golden: stored tensors that do not fit are refused, never read out of range") {
  Registry layers;
  const std::string golden = kGolden + "mamba2_dtlimit";
  const Safetensors file(golden + "/golden.safetensors");
  for (const StoredTensor& victim : file.tensors()) {
    const std::string& name = victim.name;
    if (victim.shape.empty() || victim.shape[0] == 1) continue;
    CAPTURE(name);
    const TempFolder folder;
    for (const char* other : {"config.json", "golden.json", "model.safetensors"}) {
      std::filesystem::copy(golden + "/" + other, folder / other);
    }
    // The tensor loses the last half of its first axis, then its first axis altogether.
    std::vector<StoredTensor> tensors;
    for (StoredTensor tensor : file.tensors()) {
      if (tensor.name == name) {
        tensor.bytes /= size_t(tensor.shape[0]);
        tensor.shape[0] = 1;
      }
      tensors.push_back(tensor);
    }
    write_safetensors(folder / "golden.safetensors", tensors);
    const GoldenReport report = check_golden(folder.path(), layers);
    const bool is_used =
        name != "decode_logits_reference" && name != "logits_noclamp" && name != "logits";
    CHECK(report.count(GoldenStatus::refused) == int(is_used));
  }
}

TEST_CASE("check-golden: a wrong reference value fails its row") {
  Registry layers;
  const TempFolder folder;
  const Safetensors file(kGolden + "ops/activations.safetensors");
  std::vector<StoredTensor> tensors = file.tensors();
  std::vector<double> wrong;
  for (StoredTensor& tensor : tensors) {
    if (tensor.name != "gelu.y") continue;
    wrong = values_of(tensor);
    wrong[7] += 1e-3;
    tensor.data = wrong.data();
  }
  write_safetensors(folder / "activations.safetensors", tensors);
  folder.write("activations.json", read_file(kGolden + "ops/activations.json"));
  const GoldenReport report = check_golden(folder.path(), layers);
  REQUIRE(report.rows.size() == 4);
  CHECK(report.rows[0].status == GoldenStatus::failed);
  CHECK(report.rows[0].note == "worst of 6: gelu.y");
  CHECK(report.rows[1].status == GoldenStatus::ok);
  wrong[7] = NAN;
  write_safetensors(folder / "activations.safetensors", tensors);
  CHECK(check_golden(folder.path(), layers).rows[0].status == GoldenStatus::refused);
}

TEST_CASE("check-golden: an integer that is stored in 64 bits must fit 32") {
  Registry layers;
  const TempFolder folder;
  const Safetensors file(kGolden + "ops/cross_entropy.safetensors");
  std::vector<StoredTensor> tensors = file.tensors();
  std::vector<int64_t> wrong;
  for (StoredTensor& tensor : tensors) {
    if (tensor.name != "in.labels") continue;
    for (const double label : values_of(tensor)) wrong.push_back(int64_t(label));
    wrong[3] = (int64_t{1} << 40) + 5;  // its low half is a label
    tensor.data = wrong.data();
  }
  write_safetensors(folder / "cross_entropy.safetensors", tensors);
  folder.write("cross_entropy.json", read_file(kGolden + "ops/cross_entropy.json"));
  const GoldenReport report = check_golden(folder.path(), layers);
  REQUIRE(!report.rows.empty());
  CHECK(report.rows[0].status == GoldenStatus::refused);
  CHECK(report.rows[0].note.find("in.labels holds 1099511627781") != std::string::npos);
}
