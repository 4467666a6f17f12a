// Typed options of a block, as patterns and TOML write them: true, 64, 0.5, "relu2".
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>

#include "core/contract/error.h"

namespace strata {

using OptionValue = std::variant<bool, int64_t, double, std::string>;
using Options = std::map<std::string, OptionValue, std::less<>>;

STRATA_API std::string to_string(const OptionValue& value);  // as TOML writes it
STRATA_API const char* type_name(
    const OptionValue& value);  // "boolean", "integer", "float", "string"

// The known word nearest to `word` by edit distance, or "" when none is near (for error sentences).
template <class Range>
std::string nearest(const std::string& word, const Range& known);

STRATA_API size_t edit_distance(const std::string& a, const std::string& b);

template <class Range>
std::string nearest(const std::string& word, const Range& known) {
  std::string best;
  size_t best_distance = word.size() / 2 + 2;
  for (const auto& candidate : known) {
    const size_t d = edit_distance(word, std::string(candidate));
    if (d < best_distance) {
      best_distance = d;
      best = std::string(candidate);
    }
  }
  return best;
}

}  // namespace strata
