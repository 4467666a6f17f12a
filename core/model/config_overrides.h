// Dotted keys, as `--set` and the variants of a study write them, over a TOML tree.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/io/toml.h"
#include "core/model/config.h"

namespace strata {

// TomlValue::line of a value that came from overrides[i] is kOverrideLine - i.
constexpr int kOverrideLine = -1;

// Sets one value (`line` marks it), making tables on the way. Parts may be quoted, and `*` may
// stand bare: `layers.*.window`. Throws Error for an empty part, a value that is no TOML, or a part
// that names something other than a table.
void set_dotted(TomlTable& root, const Override& item, int line = kOverrideLine);

// The leaves below `value` as overrides with canonical keys; lists are leaves. `key` is a path when
// it holds a dot or a quote ("train.lr"), else one part. A key that is there already is replaced.
// Throws Error for a key that set_dotted would refuse.
void flatten(const std::string& key, const TomlValue& value, std::vector<Override>& out);

}  // namespace strata
