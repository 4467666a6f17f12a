#include "experiments/evaluate/check_golden.h"

#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>
#include <sstream>

#include "core/io/families.h"
#include "core/io/json.h"
#include "core/io/safetensors.h"
#include "core/model/model.h"
#include "plugins/host/registry.h"
#include "tests/support/golden_folder.h"
#include "tests/support/temp_folder.h"

using namespace strata;
using namespace strata::test;

namespace {

// Knows no layer.
class NoLayers final : public LayerFactory {
 public:
  std::unique_ptr<Layer> create(const std::string& symbol, const LayerConfig&) override {
    throw Error("there is no layer " + symbol);
  }
  std::string name_of(const std::string& symbol) override {
    throw Error("there is no layer " + symbol);
  }
  Options preset(const std::string&) override { return {}; }
  uint32_t own_hooks(const std::string&) override { return 0; }
};

std::string text_of(const GoldenReport& report) {
  std::string text;
  for (const GoldenRow& row : report.rows) {
    if (row.status == GoldenStatus::ok) continue;
    text += row.name + ": " + std::to_string(row.error) + " " + row.note + "\n";
  }
  return text;
}

}  // namespace

TEST_CASE("check-golden: the operators of core pass") {
  NoLayers layers;
  const GoldenReport report = check_golden(kGolden + "ops", layers);
  INFO(text_of(report));
  CHECK(report.count(GoldenStatus::failed) == 0);
  CHECK(report.count(GoldenStatus::ok) >= 20);
}

TEST_CASE("check-golden: models and the operators of plugins pass") {
  Registry layers;
  for (const char* name : {"ops", "nemotron_h", "nemotron_h_dtmin", "nemotron_h_latent", "mamba2",
                           "mamba2_dtlimit", "llama", "llama_rope3", "nemotron", "bamba"}) {
    CAPTURE(name);
    const GoldenReport report = check_golden(kGolden + name, layers);
    INFO(text_of(report));
    CHECK(report.count(GoldenStatus::failed) == 0);
    CHECK(report.count(GoldenStatus::ok) >= 20);
    const bool is_model = name != std::string("ops");
    CHECK((!is_model || report.count(GoldenStatus::skipped) == 0));
  }
}

TEST_CASE("check-golden: a sharded model is read, and an assembled one is written back unchanged") {
  Registry layers;
  for (const char* name : {"nemotron_h", "bamba", "nemotron"}) {
    CAPTURE(name);
    const std::string golden = kGolden + name;
    const TempFolder folder;
    for (const char* file : {"config.json", "golden.json", "golden.safetensors"}) {
      std::filesystem::copy(golden + "/" + file, folder / file);
    }
    const Safetensors whole(golden + "/model.safetensors");
    std::vector<StoredTensor> shards[2];
    Json map = Json::object();
    for (const StoredTensor& tensor : whole.tensors()) {
      const size_t shard = map.as_object("").size() % 2;
      shards[shard].push_back(tensor);
      map.set(tensor.name, "part-" + std::to_string(shard) + ".safetensors");
    }
    for (const size_t shard : {0, 1}) {
      write_safetensors(folder / ("part-" + std::to_string(shard) + ".safetensors"), shards[shard]);
    }
    folder.write("model.safetensors.index.json",
                 Json::object().set("weight_map", std::move(map)).dump());
    const GoldenReport report = check_golden(folder.path(), layers);
    INFO(text_of(report));
    CHECK(report.count(GoldenStatus::failed) == 0);

    const ForeignModel foreign = read_foreign_config(folder / "config.json");
    const TensorFiles files(folder.path());
    Model model(foreign.config, layers);
    model.allocate(model.plan({1, 4, false, false}, 0), false);
    load_tensors(foreign, files, model.params());
    save_tensors(foreign, model.params(), folder / "back.safetensors", &files);
    const Safetensors back(folder / "back.safetensors");
    REQUIRE(back.tensors().size() == whole.tensors().size());
    for (const StoredTensor& tensor : whole.tensors()) {
      CAPTURE(tensor.name);
      const StoredTensor& other = back.at(tensor.name);
      CHECK(other.shape == tensor.shape);
      REQUIRE(other.bytes == tensor.bytes);
      CHECK(std::memcmp(other.data, tensor.data, tensor.bytes) == 0);
    }
  }
}

// A folder whose reference is this build's own float64 forward: it shows that every way through the
// model agrees, at sizes that the stored folders do not have.
TEST_CASE("check-golden: long sequences, eight groups and odd sizes agree on every path") {
  Registry layers;
  const TempFolder folder;
  Json config = read_json(kGolden + "nemotron_h/config.json");
  const std::pair<const char*, Json> changes[] = {{"hybrid_override_pattern", "MM*-ME*M"},
                                                  {"num_hidden_layers", 8},
                                                  {"hidden_size", 40},
                                                  {"mamba_num_heads", 16},
                                                  {"mamba_head_dim", 5},
                                                  {"n_groups", 8},
                                                  {"ssm_state_size", 12},
                                                  {"conv_kernel", 3},
                                                  {"use_conv_bias", false},
                                                  {"use_bias", true},
                                                  {"mlp_bias", true},
                                                  {"chunk_size", 32},
                                                  {"num_attention_heads", 6},
                                                  {"num_key_value_heads", 1},
                                                  {"vocab_size", 77}};
  for (const auto& [key, value] : changes) config.set(key, value);
  folder.write("config.json", config.dump());
  const ForeignModel foreign = read_foreign_config(folder / "config.json");

  Config ours = foreign.config;
  ours.model.dtype = "f32";
  Model written(ours, layers);
  written.allocate(written.plan({1, 4, false, false}, 0), false);
  written.initialize(4);
  save_tensors(foreign, written.params(), folder / "model.safetensors");
  ours.model.dtype = "f64";
  Model model(ours, layers);
  const int64_t batch = 3, length = 333, prompt = 200, vocab = 77;
  model.allocate(model.plan({batch, length, false, true}), true);
  load_tensors(foreign, TensorFiles(folder.path()), model.params());

  std::vector<int32_t> tokens;
  std::vector<int64_t> ids;
  Random random(9, 9);
  for (int64_t i = 0; i < batch * length; ++i) {
    ids.push_back(int64_t(random.below(uint64_t(vocab))));
    tokens.push_back(int32_t(ids.back()));
  }
  const Tensor logits = model.logits({view_of(tokens.data(), {batch, length}, DType::i32), {}, {}});
  const double* all = logits.ptr<double>();
  const auto part = [&](int64_t begin, int64_t end) {
    std::vector<float> out;
    for (int64_t b = 0; b < batch; ++b) {
      for (int64_t i = begin * vocab; i < end * vocab; ++i) {
        out.push_back(float(all[b * length * vocab + i]));
      }
    }
    return out;
  };
  const std::vector<float> first = part(0, prompt), rest = part(prompt, length);
  const auto stored = [](const char* name, DType type, std::vector<int64_t> shape,
                         const void* data) {
    const size_t bytes = size_t(numel_of(shape, name)) * size_of(type);
    return StoredTensor{name, type, std::move(shape), data, bytes};
  };
  write_safetensors(
      folder / "golden.safetensors",
      {stored("input_ids", DType::i64, {batch, length}, ids.data()),
       stored("logits_f64", DType::f64, {batch, length, vocab}, all),
       stored("prefill_logits", DType::f32, {batch, prompt, vocab}, first.data()),
       stored("decode_logits", DType::f32, {batch, length - prompt, vocab}, rest.data())});
  const GoldenReport report = check_golden(folder.path(), layers);
  INFO(text_of(report));
  CHECK(report.count(GoldenStatus::failed) == 0);
  CHECK(report.count(GoldenStatus::ok) == 9);
}

TEST_CASE("check-golden: what is missing is skipped and strict counts it") {
  NoLayers layers;
  std::ostringstream out;
  CHECK(run_check_golden({kGolden + "mamba2"}, layers, {}, out) == 0);
  CHECK(out.str().find("skipped: needs plugin mamba2\n") != std::string::npos);
  CHECK(out.str().ends_with("\n0 passed, 0 failed, 1 skipped\n"));
  std::ostringstream strict;
  CHECK(run_check_golden({kGolden + "mamba2"}, layers, {.strict = true}, strict) == 1);

  const TempFolder folder;
  std::filesystem::create_directory(folder / "jamba");
  folder.write("jamba/config.json", "{\"model_type\": \"jamba\"}");
  folder.write("jamba/golden.safetensors", "");
  std::ostringstream json;
  CHECK(run_check_golden({folder.path()}, layers, {.json = true}, json) == 0);
  const Json report = parse_json(json.str(), "report");
  CHECK(report.at("skipped", "r").as_int("r") == 1);
  const Json& row = report.at("folders", "r").as_array("r")[0].at("rows", "r").as_array("r")[0];
  CHECK(row.at("note", "r").as_string("r") == "needs plugin mamba1");
}
