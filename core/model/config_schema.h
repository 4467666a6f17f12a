// The table of every config key. The reader checks against it, `strata help config` prints it and
// `strata init` writes it out, so the three cannot disagree.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/io/toml.h"
#include "core/model/config.h"

namespace strata {

struct ConfigKey {
  std::string section, name;  // "train", "lr"
  std::string type;           // "number"
  std::string unit;           // "tokens", "bytes", ...; "" for a pure number
  std::string help;           // one line
  std::string range;          // "greater than 0", "one of rmsnorm, layernorm", ""
  bool identity = true;       // false: does not change what is learned (logging, checkpoints)

  // Reads a value. Throws Error whose text is the tail of a sentence: "must be a number, got ...".
  std::function<void(Config&, const TomlValue&)> set;
  std::function<TomlValue(const Config&)> get;

  std::string full_name() const { return section + "." + name; }
  STRATA_API std::string standard() const;  // the default as TOML
};

// Every key with a fixed name, by section, in the order of the help page. The free tables are not
// in it: [layers.X] (options of plugins) and all of [task] but its name.
STRATA_API const std::vector<ConfigKey>& config_keys();

// The sections in their order, each with one line of help.
struct ConfigSection {
  std::string name, help;
};
STRATA_API const std::vector<ConfigSection>& config_sections();

}  // namespace strata
