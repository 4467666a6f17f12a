// How each type of config field is read from TOML and written back. Used by the key table only.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/io/toml.h"
#include "core/model/config.h"

namespace strata::config_values {

// What a value must satisfy: numbers lie in [min, max] (or above min), texts are one of `choices`.
struct Range {
  double min = 0, max = 0;
  bool above_min = false;
  std::vector<std::string> choices = {};
  bool bytes = false;      // integers may be written "8GiB"
  bool automatic = false;  // 0 may be written "auto"

  std::string text() const;  // "greater than 0", "one of a, b", "" when anything goes
};

// "an integer", "a list of strings": what `read` accepts, by field type.
std::string type_text(const bool*);
std::string type_text(const int64_t*);
std::string type_text(const double*);
std::string type_text(const std::string*);
std::string type_text(const std::vector<std::string>*);
std::string type_text(const std::vector<int64_t>*);
std::string type_text(const std::array<double, 2>*);
std::string type_text(const std::vector<std::pair<std::string, std::vector<std::string>>>*);
std::string type_text(const std::vector<VariantConfig>*);
std::string type_text(const std::vector<std::pair<std::string, std::string>>*);

// Each throws Error with the tail of a sentence: "must be an integer, got \"a\"".
void read(const TomlValue& v, const Range& range, bool& out);
void read(const TomlValue& v, const Range& range, int64_t& out);  // also 1e4
void read(const TomlValue& v, const Range& range, double& out);
void read(const TomlValue& v, const Range& range, std::string& out);
void read(const TomlValue& v, const Range& range, std::vector<std::string>& out);
void read(const TomlValue& v, const Range& range, std::vector<int64_t>& out);  // n: 0 to n - 1
void read(const TomlValue& v, const Range& range, std::array<double, 2>& out);
void read(const TomlValue& v, const Range& range,
          std::vector<std::pair<std::string, std::vector<std::string>>>& out);
void read(const TomlValue& v, const Range& range, std::vector<VariantConfig>& out);
void read(const TomlValue& v, const Range& range,
          std::vector<std::pair<std::string, std::string>>& out);

TomlValue write(bool v);
TomlValue write(int64_t v);
TomlValue write(double v);
TomlValue write(const std::string& v);
TomlValue write(const std::vector<std::string>& v);
TomlValue write(const std::vector<int64_t>& v);
TomlValue write(const std::array<double, 2>& v);
TomlValue write(const std::vector<std::pair<std::string, std::vector<std::string>>>& v);
TomlValue write(const std::vector<VariantConfig>& v);
TomlValue write(const std::vector<std::pair<std::string, std::string>>& v);

}  // namespace strata::config_values
