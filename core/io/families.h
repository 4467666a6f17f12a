// Families: foreign models (config.json + safetensors) read as ours and written back, as data.
//
// One file configs/families/<model_type>.toml says how the config's keys become our [model] and
// [layers.X] keys, what one foreign layer is here, and which tensor has which name
// (configs/families/README.md is the format). Tensors are only renamed and stacked, so what is
// written back has the same bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "core/contract/error.h"
#include "core/io/json.h"
#include "core/io/safetensors.h"
#include "core/model/config.h"
#include "core/model/params.h"
#include "core/tensor/device.h"

namespace strata {

// One of our parameters and the foreign tensors that it consists of.
struct TensorRule {
  std::string ours;                 // "blocks.3.mixer.in_proj"
  std::vector<std::string> theirs;  // several: stacked along our first axis, one per index
  bool stacked = false;
  int64_t rows = -1;      // the rows that the config asks for; -1: nothing to say
  std::string rows_text;  // the sum: "2 * n_heads * head_dim + n_heads = 2 * 8 * 12 + 8"
};

struct ForeignModel {
  std::string family;               // model_type
  std::string origin;               // path of config.json
  std::string family_file;          // path of the TOML file
  Config config;                    // [model] and [layers.X]
  std::vector<int64_t> layer_ends;  // per foreign layer: how many of our blocks end with it
  std::vector<TensorRule> tensors;
  std::vector<std::string> ignored;  // names or "prefix*" that a file may have and we do not
  std::map<std::string, std::string> plugins;  // symbol -> the plugin it stands for: M -> mamba2
  std::vector<std::string> needs;              // what Strata does not have yet: "plugin mamba1"
};

// Reads a config.json. `families`: folder of the family files, "" for Strata's own. Throws Error
// for an unknown model_type, a missing or contradicting key; a model with `needs` is returned.
STRATA_API ForeignModel read_foreign_config(const std::string& path,
                                            const std::string& families = "");
STRATA_API ForeignModel read_foreign_config(const Json& config, const std::string& origin,
                                            const std::string& families = "");

// A foreign tensor as a part of one of our parameters: elements [begin, begin + shape's product).
struct ForeignView {
  std::string name;
  const NamedParam* param = nullptr;
  const TensorRule* rule = nullptr;
  Shape shape;  // ours, of this part
  int64_t begin = 0;
};

// All foreign tensors of a model, in the order of our parameters. Throws Error if a parameter has
// no rule, or a stack another length than the parameter.
STRATA_API std::vector<ForeignView> foreign_views(const ForeignModel& model,
                                                  const ParamStore& params);

// Fills every parameter; values are converted to the dtype of the storage. Throws Error for a
// missing or superfluous tensor or a shape that does not fit, naming file, tensor and both shapes.
STRATA_API void load_tensors(const ForeignModel& model, const TensorFiles& files,
                             ParamStore& params);

// All parameters as foreign tensors. They point into the parameters, into `copies` of them, or
// into `converted` where the dtype differs.
struct ForeignTensors {
  std::vector<StoredTensor> tensors;
  std::vector<std::vector<std::byte>> converted;
  std::deque<HostCopy> copies;  // of tensors on another device
};

// What save_tensors() writes: `like`, if given, decides dtype, shape and order of the tensors that
// it has too, so that a model that was read from it gives the same bytes.
STRATA_API ForeignTensors foreign_tensors(const ForeignModel& model, const ParamStore& params,
                                          const TensorFiles* like = nullptr);

// Writes all parameters under their foreign names.
STRATA_API void save_tensors(const ForeignModel& model, const ParamStore& params,
                             const std::string& path, const TensorFiles* like = nullptr);

}  // namespace strata
