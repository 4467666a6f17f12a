// Dotted keys, as `--set` and the variants of a study write them, over a TOML tree.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/io/toml.h"
#include "core/model/config.h"

namespace strata {

constexpr int kOverrideLine = -1;  // TomlValue::line of a value that came from an override

// Sets one value, making tables on the way. Parts may be quoted, and `*` may stand bare:
// `layers.*.window`. Throws Error for an empty part, a value that is no TOML, or a part that names
// something other than a table.
void set_dotted(TomlTable& root, const Override& item);

// The leaves below `value` as dotted overrides; lists are leaves.
void flatten(const TomlValue& value, const std::string& prefix, std::vector<Override>& out);

// A table's key as a dotted path: "train.lr" written in quotes is a path already.
std::string dotted_key(const std::string& key);

}  // namespace strata
