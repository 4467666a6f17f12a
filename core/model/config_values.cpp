#include "core/model/config_values.h"

#include <cmath>

#include "core/model/config_overrides.h"

namespace strata::config_values {
namespace {

constexpr double kNone = 9e15;  // integers up to here are exact as doubles

[[noreturn]] void refuse(const std::string& expected, const TomlValue& got) {
  std::string shown = to_toml(got);
  if (shown.size() > 60)
    shown = std::string(toml_type_name(got)) + " " + shown.substr(0, 40) + "...";
  throw Error("must be " + expected + ", got " + shown);
}

std::string short_number(double v) {
  return to_toml(
      TomlValue{v == std::floor(v) && std::abs(v) < 1e15 ? TomlValue{int64_t(v)} : TomlValue{v}});
}

// Bounds of 9e15 and beyond stand for none.
void check(double v, const Range& range, const TomlValue& got) {
  if (!std::isfinite(v)) refuse("finite", got);
  const bool low = range.above_min ? v <= range.min : range.min > -kNone && v < range.min;
  if (low || (range.max < kNone && v > range.max)) refuse(range.text(), got);
}

// "8GiB", "512 MB" -> bytes; -1 when it is no such text.
int64_t parse_bytes(const std::string& text) {
  size_t end = 0;
  double value = 0;
  try {
    value = std::stod(text, &end);
  } catch (const std::exception&) {
    return -1;
  }
  while (end < text.size() && text[end] == ' ') ++end;
  const std::string unit = text.substr(end);
  const std::pair<const char*, double> units[] = {
      {"B", 1},           {"kB", 1e3},           {"MB", 1e6},
      {"GB", 1e9},        {"TB", 1e12},          {"KiB", 1024.0},
      {"MiB", 1048576.0}, {"GiB", 1073741824.0}, {"TiB", 1099511627776.0}};
  for (const auto& [name, factor] : units) {
    const double bytes = value * factor;
    if (unit == name && bytes >= 0 && bytes < 9e15) return int64_t(bytes);
  }
  return -1;
}

}  // namespace

std::string Range::text() const {
  if (!choices.empty()) {
    std::string all;
    for (const std::string& c : choices) all += (all.empty() ? "" : ", ") + c;
    return "one of " + all;
  }
  const bool low = min > -kNone, high = max < kNone;
  if (max <= min || (!low && !high)) return "";
  if (low && high)
    return (above_min ? "above " : "from ") + short_number(min) + " to " + short_number(max);
  if (above_min) return "greater than " + short_number(min);
  return low ? "at least " + short_number(min) : "at most " + short_number(max);
}

std::string type_text(const bool*) { return "boolean"; }
std::string type_text(const int64_t*) { return "integer"; }
std::string type_text(const double*) { return "number"; }
std::string type_text(const std::string*) { return "string"; }
std::string type_text(const std::vector<std::string>*) { return "list of strings"; }
std::string type_text(const std::vector<int64_t>*) { return "integer or list of integers"; }
std::string type_text(const std::array<double, 2>*) { return "list of 2 numbers"; }
std::string type_text(const std::vector<std::pair<std::string, std::vector<std::string>>>*) {
  return "table of lists";
}
std::string type_text(const std::vector<VariantConfig>*) { return "list of tables"; }
std::string type_text(const std::vector<std::pair<std::string, std::string>>*) { return "table"; }

void read(const TomlValue& v, const Range&, bool& out) {
  if (!v.get<bool>()) refuse("true or false", v);
  out = *v.get<bool>();
}

void read(const TomlValue& v, const Range& range, int64_t& out) {
  const std::string* s = v.get<std::string>();
  if (const int64_t* i = v.get<int64_t>()) {
    out = *i;
  } else if (const double* d = v.get<double>(); d && *d == std::floor(*d) && std::abs(*d) < 9e15) {
    out = int64_t(*d);
  } else if (s && range.bytes && parse_bytes(*s) >= 0) {
    out = parse_bytes(*s);
  } else if (s && range.automatic && *s == "auto") {
    out = 0;
  } else {
    refuse(range.bytes       ? "bytes, such as 4096 or \"8GiB\""
           : range.automatic ? "an integer or \"auto\""
                             : "an integer",
           v);
  }
  if (std::abs(double(out)) > kNone) refuse("below 9e15", v);
  check(double(out), range, v);
}

void read(const TomlValue& v, const Range& range, double& out) {
  if (const int64_t* i = v.get<int64_t>()) {
    out = double(*i);
  } else if (const double* d = v.get<double>()) {
    out = *d;
  } else {
    refuse("a number", v);
  }
  check(out, range, v);
}

void read(const TomlValue& v, const Range& range, std::string& out) {
  const std::string* s = v.get<std::string>();
  if (!s) refuse("a string", v);
  if (!range.choices.empty()) {
    bool known = false;
    for (const std::string& c : range.choices) known = known || c == *s;
    if (!known) refuse(range.text(), v);
  }
  out = *s;
}

void read(const TomlValue& v, const Range& range, std::vector<std::string>& out) {
  out.clear();
  if (const std::string* s = v.get<std::string>()) {  // one string is a list of one, "none" of none
    if (*s != "none") out.push_back(*s);
    return;
  }
  const TomlList* list = v.get<TomlList>();
  if (!list) refuse("a list of strings", v);
  for (const TomlValue& item : *list) read(item, range, out.emplace_back());
}

void read(const TomlValue& v, const Range& range, std::vector<int64_t>& out) {
  out.clear();
  if (const int64_t* n = v.get<int64_t>()) {
    if (*n < 1 || *n > 1000) refuse("from 1 to 1000, or a list", v);
    for (int64_t i = 0; i < *n; ++i) out.push_back(i);
    return;
  }
  const TomlList* list = v.get<TomlList>();
  if (!list || list->empty() || list->size() > 1000) refuse("a number or a list of integers", v);
  for (const TomlValue& item : *list) {
    int64_t seed = 0;
    read(item, range, seed);
    for (int64_t earlier : out) {
      if (earlier == seed) refuse("distinct integers", v);
    }
    out.push_back(seed);
  }
}

void read(const TomlValue& v, const Range& range, std::array<double, 2>& out) {
  const TomlList* list = v.get<TomlList>();
  if (!list || list->size() != 2) refuse("a list of 2 numbers", v);
  for (size_t i = 0; i < 2; ++i) read((*list)[i], range, out[i]);
}

void read(const TomlValue& v, const Range&,
          std::vector<std::pair<std::string, std::vector<std::string>>>& out) {
  out.clear();
  const TomlTable* table = v.get<TomlTable>();
  if (!table) refuse("a table of lists", v);
  std::vector<Override> flat;
  for (const auto& [key, value] : *table) flatten(key, value, flat);
  for (const Override& o : flat) {
    const TomlValue value = parse_toml_value(o.value, o.key);
    const TomlList* list = value.get<TomlList>();
    if (!list || list->empty()) refuse("a table of non-empty lists (" + o.key + " is none)", value);
    std::vector<std::string> values;
    for (const TomlValue& item : *list) values.push_back(to_toml(item));
    out.emplace_back(o.key, std::move(values));
  }
}

void read(const TomlValue& v, const Range&, std::vector<VariantConfig>& out) {
  out.clear();
  const TomlList* list = v.get<TomlList>();
  if (!list) refuse("a list of tables", v);
  for (const TomlValue& item : *list) {
    const TomlTable* table = item.get<TomlTable>();
    if (!table) refuse("a list of tables", v);
    VariantConfig variant;
    for (const auto& [key, value] : *table) {
      if (key == "name" || key == "expect") {
        const std::string* text = value.get<std::string>();
        if (!text) throw Error("." + key + " must be a string, got " + to_toml(value));
        (key == "name" ? variant.name : variant.expect) = *text;
      } else if (key == "pattern") {
        flatten("model.pattern", value, variant.overrides);
      } else {
        flatten(key, value, variant.overrides);
      }
    }
    out.push_back(std::move(variant));
  }
}

void read(const TomlValue& v, const Range&, std::vector<std::pair<std::string, std::string>>& out) {
  out.clear();
  const TomlTable* table = v.get<TomlTable>();
  if (!table) refuse("a table", v);
  for (const auto& [key, value] : *table) out.emplace_back(key, to_toml(value));
}

TomlValue write(bool v) { return {v}; }
TomlValue write(int64_t v) { return {v}; }
TomlValue write(double v) { return {v}; }
TomlValue write(const std::string& v) { return {v}; }

template <class T>
static TomlValue write_list(const T& v) {
  TomlList list;
  for (const auto& item : v) list.push_back(write(item));
  return {std::move(list)};
}
TomlValue write(const std::vector<std::string>& v) { return write_list(v); }
TomlValue write(const std::vector<int64_t>& v) { return write_list(v); }
TomlValue write(const std::array<double, 2>& v) { return write_list(v); }

TomlValue write(const std::vector<std::pair<std::string, std::vector<std::string>>>& v) {
  TomlTable table;
  for (const auto& [key, values] : v) {
    TomlList list;
    for (const std::string& text : values) list.push_back(parse_toml_value(text, key));
    table[key].value = std::move(list);
  }
  return {std::move(table)};
}

TomlValue write(const std::vector<std::pair<std::string, std::string>>& v) {
  TomlTable table;
  for (const auto& [key, value] : v) table[key] = parse_toml_value(value, key);
  return {std::move(table)};
}

TomlValue write(const std::vector<VariantConfig>& v) {
  TomlList list;
  for (const VariantConfig& variant : v) {
    TomlTable table;
    if (!variant.name.empty()) table["name"].value = variant.name;
    if (!variant.expect.empty()) table["expect"].value = variant.expect;
    for (const Override& o : variant.overrides) table[o.key] = parse_toml_value(o.value, o.key);
    list.push_back({std::move(table)});
  }
  return {std::move(list)};
}

}  // namespace strata::config_values
