// Patterns in the spellings of other systems. Import gives a pattern; export takes an expansion and
// throws, naming the block, where the target cannot say it. Pipeline cuts are no part of a stack:
// only Megatron's spelling has them, the others leave them out.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/model/pattern.h"

namespace strata {

// ---- one letter per block
// Megatron-LM's --hybrid-layer-pattern: M G * D + - E, `|` and `/`. Throws Error with a caret for
// another character, for `*` beside D or +, and for depths that differ.
STRATA_API std::string from_megatron(std::string_view pattern);
STRATA_API std::string to_megatron(const Expansion& e);

// hybrid_override_pattern of Hugging Face's nemotron_h: M * - E. Throws Error with a caret for
// another character.
STRATA_API std::string from_hybrid_override(std::string_view pattern);
STRATA_API std::string to_hybrid_override(const Expansion& e);

// ---- one word per foreign layer
// What a foreign layer of each kind is here, as a pattern: {"mamba", "M-"}, {"attention", "*-"}.
// Two kinds may be the same blocks; export takes the first.
using LayerKinds = std::vector<std::pair<std::string, std::string>>;

enum class LayerWords {
  classic,  // mamba, attention, mlp, moe
  current,  // linear_attention, full_attention, mlp, moe (transformers 5)
};

// The kinds of nemotron_h, one mixer per layer. Both spellings are read; export takes `words`.
STRATA_API LayerKinds nemotron_h_kinds(LayerWords words);

// Hugging Face's layer_types or layers_block_type, by a table of the family. Throws Error for a
// kind that the table does not have, naming the layer.
STRATA_API std::string from_layer_types(const std::vector<std::string>& types,
                                        const LayerKinds& kinds);
STRATA_API std::vector<std::string> to_layer_types(const Expansion& e, const LayerKinds& kinds);

// ---- rules
// Jamba: layer i has attention where i % attn_period == attn_offset, else `mixer`; then experts
// where i % expert_period == expert_offset, else an MLP. One layer is two blocks.
struct LayerPeriods {
  int64_t n_layers = 0;
  int64_t attn_period = 8, attn_offset = 4;
  int64_t expert_period = 2, expert_offset = 1;
  bool experts = true;  // false (num_experts = 1): every layer has an MLP
  bool operator==(const LayerPeriods&) const = default;
};
STRATA_API std::string from_periods(const LayerPeriods& p, const std::string& mixer = "m");
// Gives the smallest periods. A stack without attention has the period n_layers + 1.
STRATA_API LayerPeriods to_periods(const Expansion& e, const std::string& mixer = "m");

// Bamba's attn_layer_indices, LFM2's full_attn_idxs, mamba_ssm's attn_layer_idx: `at` on the
// listed layers, `base` on the others; both are patterns of one foreign layer.
struct LayerIndices {
  int64_t n_layers = 0;
  std::vector<int64_t> indices;  // ascending, from 0
  bool operator==(const LayerIndices&) const = default;
};
STRATA_API std::string from_indices(const LayerIndices& list, const std::string& base,
                                    const std::string& at);
STRATA_API LayerIndices to_indices(const Expansion& e, const std::string& base,
                                   const std::string& at);

// Refuses a foreign file whose stated number of layers is not that of its pattern (one symbol per
// layer); both numbers stand in the Error. `where` is the file's name, or empty.
STRATA_API void check_layer_count(std::string_view pattern, int64_t stated,
                                  const std::string& where = "");

}  // namespace strata
