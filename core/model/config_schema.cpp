#include "core/model/config_schema.h"

#include <cmath>
#include <limits>

#include "core/model/config_values.h"

namespace strata {
namespace {

using config_values::Range;

constexpr double kBig = 9e15;  // integers that a double holds exactly
const Range kAny{-kBig, kBig};
const Range kAtLeast0{0, kBig};
const Range kAtLeast1{1, kBig};
const Range kCount{1, 1 << 20};  // rows of a batch and the like
const Range kPositive{0, kBig, true};
const Range kBytes{0, kBig, false, {}, true};

Range one_of(std::vector<std::string> choices) {
  Range range;
  range.choices = std::move(choices);
  return range;
}

class Table {
 public:
  // A field of a section's struct: type, default and accessors follow from the field itself.
  template <class S, class T>
  ConfigKey& key(std::string name, S Config::*section, T S::*field, Range range, std::string unit,
                 std::string help) {
    return key<T>(
        std::move(name), [=](Config& c) -> T& { return c.*section.*field; },
        [=](const Config& c) -> const T& { return c.*section.*field; }, std::move(range),
        std::move(unit), std::move(help));
  }

  std::string section;
  std::vector<ConfigKey> keys;

 private:
  template <class T, class Field, class ConstField>
  ConfigKey& key(std::string name, Field field, ConstField const_field, Range range,
                 std::string unit, std::string help) {
    ConfigKey k;
    k.section = section;
    k.name = std::move(name);
    k.type = config_values::type_text(static_cast<T*>(nullptr));
    k.unit = std::move(unit);
    k.help = std::move(help);
    k.range = range.text();
    k.set = [field, range](Config& c, const TomlValue& v) {
      config_values::read(v, range, field(c));
    };
    k.get = [const_field](const Config& c) { return config_values::write(const_field(c)); };
    keys.push_back(std::move(k));
    return keys.back();
  }
};

void add_model(Table& t) {
  t.section = "model";
  const auto s = &Config::model;
  using M = ModelConfig;
  t.key("pattern", s, &M::pattern, kAny, "",
        "the stack, one symbol per residual block: \"M-M*-\" (`strata help pattern`)");
  t.key("place", s, &M::place, kAny, "",
        "instead of pattern: { base = \"M^64\", \"*\" = [9, 18, 27] } or \"*\" = \"period(8, 4)\"");
  t.key("d_model", s, &M::d_model, {1, 1 << 20}, "", "width of the residual stream");
  t.key("vocab_size", s, &M::vocab_size, {0, 1 << 24}, "tokens",
        "rows of the embedding; 0: what the task needs");
  t.key("norm", s, &M::norm, one_of({"rmsnorm", "rmsnorm_1p", "layernorm", "layernorm_1p"}), "",
        "norm before every block and before the head; 1p scales by 1 + w");
  t.key("norm_eps", s, &M::norm_eps, kPositive, "", "added to the variance inside the root");
  t.key("tie_embeddings", s, &M::tie_embeddings, kAny, "", "the head uses the embedding's weights");
  t.key("embedding_multiplier", s, &M::embedding_multiplier, kAny, "", "scales the embedding");
  t.key("residual_multiplier", s, &M::residual_multiplier, kAny, "",
        "scales every block's output before its residual add");
  t.key("logits_multiplier", s, &M::logits_multiplier, kAny, "", "scales the logits");
  t.key("init_std", s, &M::init_std, kAtLeast0, "",
        "standard deviation of the embedding and head at the start");
  t.key("dtype", s, &M::dtype, one_of({"f32", "f64", "bf16", "f16"}), "",
        "type of weights and activations; bf16 and f16 on CUDA, f16 for inference");
  t.key("device", s, &M::device, kAny, "",
        "where it runs: cpu, cuda or cuda:NUMBER; a study takes every GPU for cuda, and lists: "
        "\"cuda:0,cuda:1\"");
  t.key("cuda_graphs", s, &M::cuda_graphs, kAny, "",
        "CUDA: record training and decode steps once and replay them; the results are the same")
      .identity = false;
  t.key("tf32", s, &M::tf32, kAny, "",
        "CUDA: float32 products round their factors to 10 bits of mantissa");
}

void add_train(Table& t) {
  t.section = "train";
  const auto s = &Config::train;
  using T = TrainConfig;
  t.key("steps", s, &T::steps, kAtLeast1, "optimizer steps", "length of the run");
  t.key("batch_size", s, &T::batch_size, kCount, "sequences",
        "per optimizer step, over all microbatches");
  t.key("accumulate", s, &T::accumulate, kCount, "microbatches",
        "per optimizer step; the loss is the same as without");
  t.key("lr", s, &T::lr, kPositive, "per step", "learning rate at its peak");
  t.key("schedule", s, &T::schedule, one_of({"constant", "linear", "cosine", "wsd"}), "",
        "how the learning rate falls after the warm-up");
  t.key("warmup", s, &T::warmup, kAtLeast0, "steps",
        "linear rise to lr: below 1 a share of all steps, else steps");
  t.key("decay", s, &T::decay, {0, 1}, "share of steps", "wsd: the decay part at the end");
  t.key("decay_shape", s, &T::decay_shape,
        one_of({"linear", "cosine", "exponential", "minus_sqrt"}), "",
        "wsd: the form of the decay part");
  t.key("min_lr", s, &T::min_lr, kAtLeast0, "per step", "learning rate at the end of the schedule");
  t.key("betas", s, &T::betas, {0, 0.9999999}, "", "AdamW: decay of the two moments");
  t.key("eps", s, &T::eps, kPositive, "", "AdamW: added outside the root, after bias correction");
  t.key("weight_decay", s, &T::weight_decay, kAtLeast0, "per lr",
        "AdamW: decoupled, on tensors of rank 2 and more");
  t.key("clip", s, &T::clip, kAtLeast0, "", "largest global gradient norm; 0: no clipping");
  t.key("loss_norm", s, &T::loss_norm, one_of({"token", "microbatch"}), "",
        "divide by the labels of the whole step, or of each microbatch");
  t.key("loss_chunk", s, &T::loss_chunk, {0, 1 << 20}, "tokens",
        "logits that exist at once in the cross entropy; 0: 256 on the CPU, up to 8192 on a GPU");
  t.key("recompute", s, &T::recompute, kAny, "",
        "blocks recomputed in the backward pass: \"none\", \"block\" (all) or symbols [\"M\"]");
  t.key("seed", s, &T::seed, kAtLeast0, "", "of data order, initialisation and dropout");
  t.key("threads", s, &T::threads, {0, 4096}, "threads", "0: every core; a run keeps its number");
  t.key("eval_every", s, &T::eval_every, kAtLeast0, "steps", "0: a tenth of the run");
  t.key("eval_batches", s, &T::eval_batches, kAtLeast0, "batches", "0: the whole evaluation set");
  t.key("log_every", s, &T::log_every, kAtLeast1, "steps", "one line of metrics").identity = false;
  t.key("checkpoint_every", s, &T::checkpoint_every, kAtLeast0, "steps", "0: at the end only")
      .identity = false;
  t.key("keep_checkpoints", s, &T::keep_checkpoints, kAtLeast1, "checkpoints",
        "the newest that stay on disk")
      .identity = false;
  t.key("stop_at", s, &T::stop_at, kAtLeast0, "",
        "end the run when the task's metric reaches this; 0: never");
  t.key("max_skipped", s, &T::max_skipped, kAtLeast1, "steps",
        "steps without a finite gradient in a row that end the run as diverged");
  t.key("deterministic", s, &T::deterministic, kAny, "",
        "CUDA: two runs give the same bits; false: the fastest products are searched");
  t.key("memory_limit", s, &T::memory_limit, kBytes, "bytes",
        "refuse a plan beyond this; \"8GiB\" works; 0: what the machine has")
      .identity = false;
}

void add_ablate(Table& t) {
  t.section = "ablate";
  const auto s = &Config::ablate;
  using A = AblateConfig;
  t.key("title", s, &A::title, kAny, "", "heading of the report");
  t.key("claim", s, &A::claim, kAny, "", "what the study is to show, printed under the heading");
  t.key("patterns", s, &A::patterns, kAny, "", "one variant per pattern");
  t.key("grid", s, &A::grid, kAny, "",
        "key -> list of values; every combination is a variant: { \"train.lr\" = [1e-3, 3e-3] }");
  t.key("variants", s, &A::variants, kAny, "",
        "tables with a name and any overrides: { name, pattern, layers.M.d_state, train.lr, expect "
        "}");
  t.key("seeds", s, &A::seeds, kAtLeast0, "", "a number of seeds, or a list of them");
  t.key("baseline", s, &A::baseline, kAny, "",
        "the variant that others are compared with; first if \"\"");
  t.key("jobs", s, &A::jobs, {0, 4096}, "processes",
        "runs side by side; 0: one per core, or what the GPUs hold")
      .identity = false;
  Range shared{0, 4096};
  shared.automatic = true;
  t.key("per_device", s, &A::per_device, shared, "processes",
        "runs that share a GPU; 0 or \"auto\": what its memory holds by their plans, up to 8")
      .identity = false;
  t.key("timeout", s, &A::timeout, kAtLeast0, "seconds", "a longer run is stopped; 0: any length")
      .identity = false;
}

void add_generate(Table& t) {
  t.section = "generate";
  const auto s = &Config::generate;
  using G = GenerateConfig;
  t.key("prompt", s, &G::prompt, kAny, "", "text that the model continues");
  t.key("max_tokens", s, &G::max_tokens, kAtLeast1, "tokens", "to draw");
  t.key("temperature", s, &G::temperature, kAtLeast0, "", "0: always the most likely token");
  t.key("top_k", s, &G::top_k, kAtLeast0, "tokens", "draw among so many; 0: all");
  t.key("top_p", s, &G::top_p, {0, 1, true}, "", "draw among the most likely that sum to this");
  t.key("seed", s, &G::seed, kAtLeast0, "", "of the draws");
  for (ConfigKey& k : t.keys) {
    if (k.section == "generate") k.identity = false;
  }
}

}  // namespace

std::string ConfigKey::standard() const {
  const Config defaults;
  return to_toml(get(defaults));
}

const std::vector<ConfigKey>& config_keys() {
  static const std::vector<ConfigKey> keys = [] {
    Table t;
    add_model(t);
    t.section = "task";
    t.key("name", &Config::task, &TaskConfig::name, kAny, "",
          "what is learned (`strata help task` lists them)");
    add_train(t);
    add_ablate(t);
    add_generate(t);
    return std::move(t.keys);
  }();
  return keys;
}

const std::vector<ConfigSection>& config_sections() {
  static const std::vector<ConfigSection> sections = {
      {"model", "the stack around the mixers"},
      {"layers", "options by symbol or plugin name: [layers.M], [layers.attention]"},
      {"task", "what is learned, with the task's own options"},
      {"train", "the optimizer step, its schedule, and what is written when"},
      {"ablate", "a study: patterns x grid x variants, each with every seed"},
      {"generate", "sampling from a trained model"},
  };
  return sections;
}

}  // namespace strata
