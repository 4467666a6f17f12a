// TOML as a plain tree, so that one source knows the parser.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/contract/error.h"

namespace strata {

struct TomlValue {
  using List = std::vector<TomlValue>;
  using Table = std::map<std::string, TomlValue, std::less<>>;

  std::variant<bool, int64_t, double, std::string, List, Table> value;
  int line = 0;  // in the source; 0: unknown

  template <class T>
  const T* get() const {
    return std::get_if<T>(&value);
  }
  template <class T>
  T* get() {
    return std::get_if<T>(&value);
  }
};

using TomlList = TomlValue::List;
using TomlTable = TomlValue::Table;

// Parses a document. `origin` names it in messages ("model.toml:3: ...").
// Throws Error for anything that is not TOML, invalid UTF-8, dates (nothing here uses them), more
// than 1 MiB, or nesting beyond 32.
STRATA_API TomlTable parse_toml(std::string_view text, const std::string& origin);

// Parses one value: `3e-3`, `"text"`, `[1, 2]`. Throws Error.
STRATA_API TomlValue parse_toml_value(std::string_view text, const std::string& origin);

// One value on one line, tables inline, keys in order.
STRATA_API std::string to_toml(const TomlValue& value);

// A key as TOML writes it: bare where it can be, else quoted.
STRATA_API std::string toml_key(std::string_view key);

// "a boolean", "an integer", "a number", "a string", "a list" or "a table".
STRATA_API const char* toml_type_name(const TomlValue& value);

// Every value that is no table, in order: its dotted key and its text as TOML.
STRATA_API std::vector<std::pair<std::string, std::string>> toml_leaves(const TomlTable& table);

}  // namespace strata
