#include "core/io/json.h"

#include <charconv>
#include <cmath>

namespace strata {

Json::Json() = default;
Json::Json(bool value) : value_(value) {}
Json::Json(int value) : value_(int64_t{value}) {}
Json::Json(int64_t value) : value_(value) {}
Json::Json(double value) : value_(value) {}
Json::Json(const char* value) : value_(std::string(value)) {}
Json::Json(std::string value) : value_(std::move(value)) {}
Json::Json(std::string_view value) : value_(std::string(value)) {}
Json::Json(const Json&) = default;
Json::Json(Json&&) noexcept = default;
Json& Json::operator=(const Json&) = default;
Json& Json::operator=(Json&&) noexcept = default;
Json::~Json() = default;

Json Json::array() {
  Json json;
  json.value_ = Array{};
  return json;
}

Json Json::object() { return object(Object{}); }

Json Json::object(Object members) {
  Json json;
  json.value_ = std::move(members);
  return json;
}

bool Json::operator==(const Json& other) const { return value_ == other.value_; }
bool Json::Member::operator==(const Member& other) const {
  return key == other.key && value == other.value;
}

namespace {

std::string shortened(std::string_view text) {
  size_t end = 40;
  if (text.size() <= end) return std::string(text);
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return std::string(text.substr(0, end)) + "...";
}

[[noreturn]] void wrong_kind(std::string_view where, const char* expected, const Json& got) {
  throw Error(std::string(where) + " must be " + expected + ", got " + got.describe());
}

}  // namespace

std::string Json::describe() const {
  switch (kind()) {
    case Kind::null:
      return "null";
    case Kind::boolean:
    case Kind::integer:
    case Kind::real:
      return dump();
    case Kind::string:
      return "the string \"" + shortened(std::get<std::string>(value_)) + "\"";
    case Kind::array: {
      const size_t n = std::get<Array>(value_).size();
      return "an array of " + std::to_string(n) + (n == 1 ? " value" : " values");
    }
    case Kind::object: {
      const size_t n = std::get<Object>(value_).size();
      return "an object with " + std::to_string(n) + (n == 1 ? " key" : " keys");
    }
  }
  return "nothing";
}

bool Json::as_bool(std::string_view where) const {
  if (const auto* value = std::get_if<bool>(&value_)) return *value;
  wrong_kind(where, "true or false", *this);
}

int64_t Json::as_int(std::string_view where) const {
  if (const auto* value = std::get_if<int64_t>(&value_)) return *value;
  if (const auto* real = std::get_if<double>(&value_)) {
    // 2^63 is exact in a double, so the comparison is safe; NaN fails it.
    if (*real >= -0x1p63 && *real < 0x1p63 && std::trunc(*real) == *real) {
      return static_cast<int64_t>(*real);
    }
  }
  wrong_kind(where, "an integer", *this);
}

double Json::as_double(std::string_view where) const {
  if (const auto* value = std::get_if<double>(&value_)) return *value;
  if (const auto* value = std::get_if<int64_t>(&value_)) return static_cast<double>(*value);
  wrong_kind(where, "a number", *this);
}

const std::string& Json::as_string(std::string_view where) const {
  if (const auto* value = std::get_if<std::string>(&value_)) return *value;
  wrong_kind(where, "a string", *this);
}

const Json::Array& Json::as_array(std::string_view where) const {
  if (const auto* value = std::get_if<Array>(&value_)) return *value;
  wrong_kind(where, "an array", *this);
}

const Json::Object& Json::as_object(std::string_view where) const {
  if (const auto* value = std::get_if<Object>(&value_)) return *value;
  wrong_kind(where, "an object", *this);
}

const Json* Json::find(std::string_view key) const {
  const auto* object = std::get_if<Object>(&value_);
  if (!object) return nullptr;
  for (const Member& member : *object) {
    if (member.key == key) return &member.value;
  }
  return nullptr;
}

const Json& Json::at(std::string_view key, std::string_view where) const {
  as_object(where);
  if (const Json* value = find(key)) return *value;
  throw Error(std::string(where) + " has no key \"" + std::string(key) + "\"");
}

Json& Json::set(std::string_view key, Json value) {
  if (is_null()) value_ = Object{};
  auto& object = std::get<Object>(value_);
  for (Member& member : object) {
    if (member.key == key) {
      member.value = std::move(value);
      return *this;
    }
  }
  object.push_back({std::string(key), std::move(value)});
  return *this;
}

Json& Json::push(Json value) {
  if (is_null()) value_ = Array{};
  std::get<Array>(value_).push_back(std::move(value));
  return *this;
}

namespace {

void write_string(std::string& out, std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out += "\\u00";
          out += kHex[c >> 4];
          out += kHex[c & 15];
        } else {
          out += c;
        }
    }
  }
  out += '"';
}

void write_real(std::string& out, double value) {
  if (std::isnan(value)) {
    out += "NaN";
    return;
  }
  if (std::isinf(value)) {
    out += value < 0 ? "-Infinity" : "Infinity";
    return;
  }
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  const std::string_view text(buffer, static_cast<size_t>(end - buffer));
  out += text;
  if (text.find_first_of(".e") == std::string_view::npos) out += ".0";  // stays a real when read
}

void new_line(std::string& out, int indent, int level) {
  if (indent < 0) return;
  out += '\n';
  out.append(static_cast<size_t>(indent) * static_cast<size_t>(level), ' ');
}

void write(std::string& out, const Json& json, int indent, int level) {
  switch (json.kind()) {
    case Json::Kind::null:
      out += "null";
      break;
    case Json::Kind::boolean:
      out += json.as_bool("") ? "true" : "false";
      break;
    case Json::Kind::integer:
      out += std::to_string(json.as_int(""));
      break;
    case Json::Kind::real:
      write_real(out, json.as_double(""));
      break;
    case Json::Kind::string:
      write_string(out, json.as_string(""));
      break;
    case Json::Kind::array: {
      const auto& items = json.as_array("");
      out += '[';
      for (size_t i = 0; i < items.size(); ++i) {
        if (i) out += indent < 0 ? ", " : ",";
        new_line(out, indent, level + 1);
        write(out, items[i], indent, level + 1);
      }
      if (!items.empty()) new_line(out, indent, level);
      out += ']';
      break;
    }
    case Json::Kind::object: {
      const auto& members = json.as_object("");
      out += '{';
      for (size_t i = 0; i < members.size(); ++i) {
        if (i) out += indent < 0 ? ", " : ",";
        new_line(out, indent, level + 1);
        write_string(out, members[i].key);
        out += ": ";
        write(out, members[i].value, indent, level + 1);
      }
      if (!members.empty()) new_line(out, indent, level);
      out += '}';
      break;
    }
  }
}

}  // namespace

std::string Json::dump(int indent) const {
  std::string out;
  write(out, *this, indent, 0);
  return out;
}

}  // namespace strata
