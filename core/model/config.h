// Everything that one run or study is told, as plain structs. The reader fills them once from TOML
// and `--set`; everything below receives structs. The defaults here are the defaults.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/contract/error.h"
#include "core/contract/options.h"

namespace strata {

// [model]: the stack around the mixers.
struct ModelConfig {
  std::string pattern;
  // The rules of a `place` table as TOML, by key; the reader turns them into `pattern`.
  std::vector<std::pair<std::string, std::string>> place;
  int64_t d_model = 128;
  int64_t vocab_size = 0;  // 0: the task's
  std::string norm = "rmsnorm";
  double norm_eps = 1e-5;
  bool tie_embeddings = false;
  double embedding_multiplier = 1;
  double residual_multiplier = 1;
  double logits_multiplier = 1;
  double init_std = 0.02;
  std::string dtype = "f32";
  std::string device = "cpu";
  bool cuda_graphs = true;
  bool tf32 = false;
};

using TaskValue = std::variant<bool, int64_t, double, std::string, std::vector<std::string>>;
using TaskValues = std::map<std::string, TaskValue, std::less<>>;

// [task]: a name, and options that the task's own table checks.
struct TaskConfig {
  std::string name;
  TaskValues options;
};

// [train]: the optimizer step, its schedule, and what is written when.
struct TrainConfig {
  int64_t steps = 1000;
  int64_t batch_size = 32;  // sequences per optimizer step, over all microbatches
  int64_t accumulate = 1;   // microbatches per optimizer step
  double lr = 1e-3;
  std::string schedule = "cosine";
  double warmup = 0.05;  // below 1: share of steps, else steps
  double decay = 0.2;    // wsd: share of steps in the decay part
  std::string decay_shape = "linear";
  double min_lr = 0;
  std::array<double, 2> betas = {0.9, 0.95};
  double eps = 1e-8;
  double weight_decay = 0.1;
  double clip = 1;
  std::string loss_norm = "token";
  int64_t loss_chunk = 0;              // tokens per chunk of the cross entropy; 0: by device
  std::vector<std::string> recompute;  // {}, {"block"} or symbols
  int64_t seed = 0;
  int64_t threads = 0;  // 0: every core
  int64_t eval_every = 0;
  int64_t eval_batches = 0;  // 0: the task's whole evaluation set
  int64_t log_every = 10;
  int64_t checkpoint_every = 0;
  int64_t keep_checkpoints = 2;
  double stop_at = 0;  // stop when the task's metric reaches it; 0: never
  int64_t max_skipped = 10;
  bool deterministic = true;
  int64_t memory_limit = 0;  // bytes; 0: what the machine has
};

// One dotted key with its value as TOML writes it: {"train.lr", "3e-3"}.
struct Override {
  std::string key;
  std::string value;
  std::string origin = "--set";  // where it was written, for messages: "--steps"
  bool operator==(const Override&) const = default;
};

// One row of a study: its name and what differs from the rest of the file.
struct VariantConfig {
  std::string name;
  std::vector<Override> overrides;
  std::string expect;  // a bound on the metric, such as ">= 0.99"; "": none
};

// [ablate]: patterns x grids x variants, each with every seed.
struct AblateConfig {
  std::string title;
  std::string claim;
  std::vector<std::string> patterns;
  std::vector<std::pair<std::string, std::vector<std::string>>> grid;  // key -> values as TOML
  std::vector<VariantConfig> variants;
  std::vector<int64_t> seeds = {0, 1, 2};
  std::string baseline;    // name of a variant; "": the first
  int64_t jobs = 0;        // runs side by side; 0: one per core, or what the devices hold
  int64_t per_device = 0;  // runs that share a GPU; 0: what its memory holds, up to a few
  double timeout = 0;      // seconds that one run may take; 0: any
};

// [generate]: sampling from a trained model.
struct GenerateConfig {
  std::string prompt;
  int64_t max_tokens = 256;
  double temperature = 1;
  int64_t top_k = 0;  // 0: off
  double top_p = 1;   // 1: off
  int64_t seed = 0;
};

struct Config {
  ModelConfig model;
  std::map<std::string, Options, std::less<>> layers;  // by symbol or plugin name
  TaskConfig task;
  TrainConfig train;
  AblateConfig ablate;
  GenerateConfig generate;
};

// Checks a [task] table against the task's own keys and fills its defaults. Throws Error.
using TaskCheck = std::function<void(TaskConfig&)>;

struct ConfigInput {
  std::string text;                 // TOML; may be empty
  std::string origin;               // the file's name in messages
  std::vector<Override> overrides;  // applied in order, before anything is checked
  TaskCheck check_task;             // empty: the [task] table is taken as it stands
};

// Reads, overrides and checks. Throws Error (one sentence with file, line, key, what was expected,
// what came, and the nearest known key) for bad TOML, an unknown key, a wrong type, or a value out
// of range.
STRATA_API Config read_config(const ConfigInput& input);

// As read_config, from a file. Throws Error when it cannot be read.
STRATA_API Config load_config(const std::string& path, std::vector<Override> overrides = {},
                              TaskCheck check_task = {});

// "train.lr=3e-3" -> {"train.lr", "3e-3"}; a value that is no TOML value is taken as a string
// (`task.name=mqar`). Throws Error without a '=' or a key.
STRATA_API Override parse_override(std::string_view text);

// Every key of every section, in the order of the table ([ablate] only where there is a study):
// reading it gives the same Config. `commented` adds each key's unit and meaning.
STRATA_API std::string to_toml(const Config& config, bool commented = false);

// Hex digits that name the resolved config; equal configs have equal hashes on every machine. Which
// device of a kind it is has no part in it, nor, where a device computes, the number of threads.
STRATA_API std::string config_hash(const Config& config);

// Throws Error when a pattern or a task is missing; everything else has a default.
STRATA_API void require_runnable(const Config& config, const std::string& origin);

}  // namespace strata
