#include "core/io/families.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "core/io/data_folder.h"
#include "core/io/file.h"
#include "core/tensor/convert.h"
#include "tests/support/error_text.h"
#include "tests/support/temp_folder.h"

using namespace strata;
using strata::test::error_text;
using strata::test::TempFolder;

namespace {

const std::string kGolden = STRATA_SOURCE_DIR "/tests/golden/";
const char* const kFamilies[] = {"nemotron_h", "nemotron_h_dtmin", "mamba2", "mamba2_dtlimit",
                                 "llama",      "nemotron",         "bamba",  "nemotron_h_latent"};

template <class T>
T option(const ForeignModel& model, const std::string& symbol, const std::string& key) {
  return std::get<T>(model.config.layers.at(symbol).at(key));
}

// A store with a parameter for every rule whose tensors are in the file, without any layer.
void declare_all(const ForeignModel& model, const TensorFiles& files, ParamStore& params) {
  for (const TensorRule& rule : model.tensors) {
    const StoredTensor* tensor = files.find(rule.theirs[0]);
    if (!tensor) continue;
    Shape shape;
    if (rule.stacked) shape.dim[shape.rank++] = int64_t(rule.theirs.size());
    for (const int64_t dim : tensor->shape) {
      if (dim != 1) shape.dim[shape.rank++] = dim;
    }
    params.declare(rule.ours, shape);
  }
}

// A config of the golden set with one key replaced; null removes it.
Json changed(const std::string& folder, const std::string& key, Json value) {
  Json::Object members;
  const Json config = read_json(kGolden + folder + "/config.json");
  for (const auto& member : config.as_object("")) {
    if (member.key != key) members.push_back(member);
  }
  if (!value.is_null()) members.push_back({key, std::move(value)});
  return Json::object(std::move(members));
}

std::string refusal(const Json& config) {
  return error_text([&] { read_foreign_config(config, "config.json"); });
}

}  // namespace

TEST_CASE("families: both spellings of a config say the same") {
  for (const char* name : kFamilies) {
    CAPTURE(name);
    const ForeignModel old = read_foreign_config(kGolden + name + "/config.json");
    const ForeignModel now = read_foreign_config(kGolden + name + "/config_hf5.json");
    CHECK(old.needs.empty());
    CHECK(to_toml(old.config) == to_toml(now.config));
    CHECK(old.layer_ends == now.layer_ends);
  }
}

TEST_CASE("families: what a config becomes") {
  const ForeignModel h = read_foreign_config(kGolden + "nemotron_h/config.json");
  CHECK(h.config.model.pattern == "M-ME*-");
  CHECK(h.config.model.d_model == 48);
  CHECK(h.layer_ends == std::vector<int64_t>{1, 2, 3, 4, 5, 6});
  CHECK(option<int64_t>(h, "M", "n_heads") == 8);
  CHECK(option<int64_t>(h, "M", "norm_groups") == 2);
  CHECK(option<double>(h, "E", "scale") == 2.5);
  CHECK(h.config.layers.at("M").count("dt_limit_max") == 0);

  const ForeignModel bamba = read_foreign_config(kGolden + "bamba/config.json");
  CHECK(bamba.config.model.pattern == "M-*-M-");
  CHECK(bamba.layer_ends == std::vector<int64_t>{2, 4, 6});
  CHECK(option<int64_t>(bamba, "M", "norm_groups") == 1);
  CHECK(option<double>(bamba, "*", "rope_fraction") == 0.5);
  CHECK(option<double>(bamba, "*", "rope_theta") == 20000);

  const ForeignModel limited = read_foreign_config(kGolden + "mamba2_dtlimit/config.json");
  CHECK(option<double>(limited, "M", "dt_limit_max") < 1e9);
  const ForeignModel free = read_foreign_config(kGolden + "mamba2/config_hf5.json");
  CHECK(std::isinf(option<double>(free, "M", "dt_limit_max")));

  CHECK(read_foreign_config(kGolden + "nemotron/config.json").config.model.norm == "layernorm_1p");
}

TEST_CASE("families: what is written back has the same bytes") {
  const TempFolder folder;
  for (const char* name : kFamilies) {
    CAPTURE(name);
    const ForeignModel model = read_foreign_config(kGolden + name + "/config.json");
    const TensorFiles files(kGolden + name);
    for (const DType dtype : {DType::f32, DType::f64}) {
      ParamStore params;
      declare_all(model, files, params);
      params.allocate(dtype, false, false);
      load_tensors(model, files, params);
      const std::string path = folder / "out.safetensors";
      save_tensors(model, params, path, &files);
      const Safetensors back(path);
      REQUIRE(back.tensors().size() == files.tensors().size());
      for (const StoredTensor* tensor : files.tensors()) {
        CAPTURE(tensor->name);
        const StoredTensor& other = back.at(tensor->name);
        CHECK(other.dtype == tensor->dtype);
        CHECK(other.shape == tensor->shape);
        REQUIRE(other.bytes == tensor->bytes);
        CHECK(std::memcmp(other.data, tensor->data, tensor->bytes) == 0);
      }
    }
  }
}

TEST_CASE("families: experts are stacked in their order") {
  const ForeignModel model = read_foreign_config(kGolden + "nemotron_h/config.json");
  const TensorFiles files(kGolden + "nemotron_h");
  ParamStore params;
  declare_all(model, files, params);
  params.allocate(DType::f32, false, false);
  load_tensors(model, files, params);
  const Tensor& up = params.at("blocks.3.mixer.experts.up_proj").slot->value;
  CHECK(up.shape == Shape{6, 20, 48});
  for (int e = 0; e < 6; ++e) {
    const StoredTensor* tensor =
        files.find("backbone.layers.3.mixer.experts." + std::to_string(e) + ".up_proj.weight");
    CHECK(std::memcmp(up.ptr<float>() + e * 20 * 48, tensor->data, tensor->bytes) == 0);
  }
}

TEST_CASE("families: an in_proj with other rows is refused with the sum") {
  const TensorFiles files(kGolden + "nemotron_h");
  const ForeignModel right = read_foreign_config(kGolden + "nemotron_h/config.json");
  ParamStore params;
  declare_all(right, files, params);
  params.allocate(DType::f32, false, false);
  const ForeignModel model =
      read_foreign_config(changed("nemotron_h", "n_groups", Json(4)), "config.json");
  const std::string text = error_text([&] { load_tensors(model, files, params); });
  CHECK(text.ends_with(
      "tensor backbone.layers.0.mixer.in_proj.weight: expected 2 * n_heads * head_dim + 2 * "
      "n_groups * d_state + n_heads = 2 * 8 * 8 + 2 * 4 * 16 + 8 = 264 rows, got shape [200, 48]"));
}

TEST_CASE("families: tensors that are missing, too many or misshapen") {
  const TensorFiles files(kGolden + "llama");
  const ForeignModel model = read_foreign_config(kGolden + "llama/config.json");
  ParamStore params;
  declare_all(model, files, params);
  params.allocate(DType::f32, false, false);
  load_tensors(model, files, params);

  ParamStore fewer;
  fewer.declare("embed.weight", {256, 48});
  fewer.allocate(DType::f32, false, false);
  CHECK(error_text([&] {
          load_tensors(model, files, fewer);
        }).ends_with("the model of this config has no such parameter"));

  ParamStore more;
  declare_all(model, files, more);
  more.declare("blocks.0.mixer.q_proj.bias", {48});
  more.allocate(DType::f32, false, false);
  CHECK(error_text([&] {
          load_tensors(model, files, more);
        }).find("there is no tensor model.layers.0.self_attn.q_proj.bias") != std::string::npos);

  ParamStore other;
  other.declare("embed.weight", {256, 40});
  other.allocate(DType::f32, false, false);
  CHECK(error_text([&] {
          load_tensors(model, files, other);
        }).ends_with("expected shape [256, 40] (embed.weight), got [256, 48]"));

  ParamStore unknown;
  unknown.declare("blocks.0.mixer.extra", {1});
  CHECK(error_text([&] {
          foreign_views(model, unknown);
        }).ends_with("llama.toml: it has no name for the parameter blocks.0.mixer.extra"));
}

TEST_CASE("families: a head that repeats tied embeddings is not read") {
  const TensorFiles files(kGolden + "llama");
  const ForeignModel model =
      read_foreign_config(changed("llama", "tie_word_embeddings", Json(true)), "config.json");
  ParamStore all;
  declare_all(model, files, all);
  ParamStore params;
  for (const NamedParam& param : all.all()) {
    if (param.name != "lm_head.weight") params.declare(param.name, param.slot->shape);
  }
  params.allocate(DType::f32, false, false);
  load_tensors(model, files, params);
  CHECK(params.all().size() + 1 == all.all().size());
}

TEST_CASE("families: a config that contradicts itself is refused") {
  CHECK(refusal(changed("nemotron_h", "num_hidden_layers", Json(52))) ==
        "config.json: it states 52 layers (num_hidden_layers), but lists 6 "
        "(hybrid_override_pattern ?? layers_block_type); one of the two is wrong");
  CHECK(refusal(changed("nemotron_h", "hybrid_override_pattern", Json("M-XE*-")))
            .find("layer 2 is of the unknown kind \"X\"; known: ") != std::string::npos);
  CHECK(refusal(changed("nemotron_h", "hidden_size", Json())) ==
        "config.json: expected a value for \"hidden_size\", got none (" +
            data_path("configs/families") + "/nemotron_h.toml: model.d_model asks for it)");
  CHECK(refusal(changed("nemotron_h", "hidden_size", Json(-4))).find("from 1 to 1048576, got -4") !=
        std::string::npos);
  CHECK(refusal(changed("nemotron_h", "mamba_num_heads", Json("many"))).find("config.json") !=
        std::string::npos);
  CHECK(refusal(changed("mamba2", "expand", Json(4)))
            .ends_with("num_heads * head_dim must be expand * hidden_size, got (8 ?? 128) * "
                       "(12 ?? 64) != (4 ?? 2) * 48"));
  CHECK(refusal(changed("llama", "num_hidden_layers", Json(int64_t{1} << 40))) != "");
  CHECK(refusal(changed("llama", "num_hidden_layers", Json(0))).find("no layers") !=
        std::string::npos);
  CHECK(refusal(changed("llama", "model_type", Json("gpt2")))
            .starts_with("config.json: model_type \"gpt2\" is unknown; known: bamba, "));
  CHECK(refusal(changed("llama", "model_type", Json("../llama"))).find("is unknown") !=
        std::string::npos);
  CHECK(refusal(changed("llama", "model_type", Json())) == "config.json has no key \"model_type\"");
}

TEST_CASE("families: what Strata does not have is said, not guessed") {
  const Json yarn = Json::object().set("type", "yarn").set("factor", 4.0);
  CHECK(read_foreign_config(changed("llama", "rope_scaling", yarn), "c").needs ==
        std::vector<std::string>{"rope scaling other than llama3 (attention)"});
  CHECK(read_foreign_config(changed("llama", "model_type", Json("jamba")), "c").needs ==
        std::vector<std::string>{"plugin mamba1"});
  const std::pair<const char*, const char*> activations[] = {
      {"nemotron_h", "mamba_hidden_act"}, {"mamba2", "hidden_act"}, {"bamba", "hidden_act"}};
  for (const auto& [family, key] : activations) {
    CAPTURE(family);
    CHECK(read_foreign_config(changed(family, key, Json("gelu")), "c").needs ==
          std::vector<std::string>{"activations of the convolution other than silu (mamba2)"});
    CHECK(read_foreign_config(changed(family, key, Json("swish")), "c").needs.empty());
    CHECK(read_foreign_config(changed(family, key, Json()), "c").needs.empty());
  }
}

TEST_CASE("families: mamba2 has its class's 128 heads of 64 where a config is silent") {
  Json config = changed("mamba2", "num_heads", Json());
  config.set("expand", 2).set("hidden_size", 768);
  CHECK(option<int64_t>(read_foreign_config(config, "c"), "M", "n_heads") == 128);
  config = changed("mamba2", "head_dim", Json());
  config.set("hidden_size", 256);
  CHECK(option<int64_t>(read_foreign_config(config, "c"), "M", "head_dim") == 64);
}

TEST_CASE("families: a model_type that no file name can hold is unknown") {
  const std::string endless(300, 'x');
  const std::string text = error_text(
      [&] { read_foreign_config(changed("llama", "model_type", Json(endless)), "config.json"); });
  CHECK(text.find("is unknown; known: bamba") != std::string::npos);
}

TEST_CASE("families: a family file is checked too") {
  const TempFolder folder;
  const auto read = [&](const std::string& text) {
    folder.write("toy.toml", "model_type = \"toy\"\n" + text);
    return error_text([&] {
      read_foreign_config(parse_json("{\"model_type\": \"toy\", \"d\": 8}", "c"), "c",
                          folder.path());
    });
  };
  CHECK(read("[modle]\n").find("modle is unknown; did you mean \"model\"?") != std::string::npos);
  CHECK(read("[model]\nd_modell = \"d\"\n").find("did you mean \"d_model\"?") != std::string::npos);
  CHECK(read("[stack]\nlayers = 3\n").find("stack.layers must be a string") != std::string::npos);
  CHECK(read("[stack]\nprefix = \"\"\n").find("stack.layers is missing") != std::string::npos);
  CHECK(read("[model]\nd_model = \"d +\"\n").find("it ends too early") != std::string::npos);
  CHECK(read("[model]\nd_model = []\n").find("must be an expression") != std::string::npos);
}

TEST_CASE("convert: narrow types round to nearest even and come back") {
  const std::vector<float> values{
      1, -2.5f, 65504, 65520, 1e-8f, 5.9604645e-8f, 1.00048828125f, 6.1e-5f, -0.f, INFINITY};
  std::vector<uint16_t> half(values.size());
  convert_numbers(values.data(), DType::f32, half.data(), DType::f16, values.size());
  CHECK(half == std::vector<uint16_t>{0x3C00, 0xC100, 0x7BFF, 0x7C00, 0, 1, 0x3C00, 0x03FF, 0x8000,
                                      0x7C00});
  for (const DType type : {DType::f16, DType::bf16}) {
    int wrong = 0;
    for (uint32_t bits = 0; bits < 65536; ++bits) {
      const auto from = uint16_t(bits);
      double wide = 0;
      uint16_t back = 0;
      convert_numbers(&from, type, &wide, DType::f64, 1);
      convert_numbers(&wide, DType::f64, &back, type, 1);
      wrong += !std::isnan(wide) && back != from;
    }
    CHECK(wrong == 0);
  }
  const float tie = 1.00390625f;  // halfway between two bf16 numbers
  uint16_t brain = 0;
  convert_numbers(&tie, DType::f32, &brain, DType::bf16, 1);
  CHECK(brain == 0x3F80);
  int64_t integer = 1;
  CHECK(error_text([&] { convert_numbers(&integer, DType::i64, &brain, DType::bf16, 1); }) ==
        "numbers of type i64 cannot become bf16");
}
