// Where the blocks of a kind go: rules that make a pattern. They belong to TOML, not to the string:
//   place = { base = "M^64", "*" = [9, 18, 27] }    place = { base = "M^64", "*" = "period(8, 4)" }
//   pattern = "even(56, 0.08, 0.5)"
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/contract/error.h"

namespace strata {

// Pairs of a pattern of one block (usually a symbol) and the places it takes, from 0.
using Placements = std::vector<std::pair<std::string, std::vector<int64_t>>>;

// The pattern `base` with the blocks at the given places replaced, flat. Throws Error when a place
// lies outside of the base, is taken twice, or belongs to a shared group of several blocks.
STRATA_API std::string place(const std::string& base, const Placements& placements);

// n blocks of `M`, of which round(n * attn) become `*`, evenly spaced with Mamba first and last,
// and then round(n * mlp) become `-`, evenly spaced over the other Mamba blocks; round goes half to
// even. The rule is Megatron-LM's pattern_from_ratios. Throws Error when n is not within
// 1 .. kMaxPatternBlocks, a ratio is not within 0 .. 1, or their sum is above 1.
STRATA_API std::string even(int64_t n, double attn, double mlp);

// The places i of 0 .. n - 1 with i % p == o (Jamba's period and offset). Throws Error unless
// 0 <= o < p.
STRATA_API std::vector<int64_t> period(int64_t n, int64_t p, int64_t o);

// Every k-th place: i with (i + 1) % k == 0 (Qwen3-Next's full_attention_interval). Throws Error
// unless k >= 1.
STRATA_API std::vector<int64_t> interval(int64_t n, int64_t k);

// The places of a rule written as text: "period(8, 4)" or "interval(4)". Throws Error.
STRATA_API std::vector<int64_t> places_of(std::string_view rule, int64_t n);

// Whether the text is a call of `even`, and so no pattern string.
STRATA_API bool is_generator(std::string_view text);

// The pattern of a generator written as text: "even(56, 0.08, 0.5)". Throws Error.
STRATA_API std::string generate_pattern(std::string_view call);

}  // namespace strata
