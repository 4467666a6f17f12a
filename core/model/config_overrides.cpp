#include "core/model/config_overrides.h"

namespace strata {
namespace {

// The parts of a dotted key; quotes around a part are taken off.
std::vector<std::string> split(const std::string& key) {
  std::vector<std::string> parts(1);
  char quote = 0;
  for (char c : key) {
    if (quote) {
      if (c == quote) {
        quote = 0;
      } else {
        parts.back() += c;
      }
    } else if (c == '"' || c == '\'') {
      quote = c;
    } else if (c == '.') {
      parts.emplace_back();
    } else if (c != ' ') {
      parts.back() += c;
    }
  }
  if (quote) throw Error("key " + key + ": a quote is not closed");
  for (const std::string& part : parts) {
    for (char c : part) {
      if (c == '"' || c == '\\' || static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
        throw Error("key " + to_string(OptionValue(key)) + ": no key has such characters");
      }
    }
    if (part.empty()) throw Error("key " + key + ": a part is empty; write section.key");
  }
  if (parts.size() > 8) throw Error("key " + key + ": no key has more than 8 parts");
  return parts;
}

void mark(TomlValue& value, int line) {
  value.line = line;
  if (TomlList* list = value.get<TomlList>()) {
    for (TomlValue& item : *list) mark(item, line);
  } else if (TomlTable* table = value.get<TomlTable>()) {
    for (auto& [key, item] : *table) mark(item, line);
  }
}

}  // namespace

void set_dotted(TomlTable& root, const Override& item, int line) {
  const std::vector<std::string> parts = split(item.key);
  TomlTable* table = &root;
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    TomlValue& next = table->try_emplace(parts[i], TomlValue{TomlTable{}, line}).first->second;
    table = next.get<TomlTable>();
    if (!table) {
      throw Error(item.origin + " " + item.key + ": " + parts[i] + " is " + toml_type_name(next) +
                  ", not a table");
    }
  }
  TomlValue value = parse_toml_value(item.value, item.origin + " " + item.key);
  mark(value, line);
  (*table)[parts.back()] = std::move(value);
}

void flatten(const std::string& key, const TomlValue& value, std::vector<Override>& out) {
  std::string canonical;
  for (const std::string& part : split(key)) {
    canonical += (canonical.empty() ? "" : ".") + toml_key(part);
  }
  if (const TomlTable* table = value.get<TomlTable>()) {
    for (const auto& [name, item] : *table) flatten(canonical + "." + toml_key(name), item, out);
    return;
  }
  for (Override& earlier : out) {
    if (earlier.key == canonical) {
      earlier.value = to_toml(value);
      return;
    }
  }
  out.push_back({canonical, to_toml(value)});
}

Override parse_override(std::string_view text) {
  const size_t equals = text.find('=');
  std::string key(text.substr(0, equals));
  while (!key.empty() && key.back() == ' ') key.pop_back();
  if (equals == std::string_view::npos || key.empty()) {
    throw Error("--set " + std::string(text) + ": expected key=value, such as train.lr=3e-3");
  }
  std::string value(text.substr(equals + 1));
  while (!value.empty() && value.front() == ' ') value.erase(0, 1);
  const bool structured =
      !value.empty() && std::string_view("\"'[{").find(value[0]) != std::string_view::npos;
  try {
    parse_toml_value(value, key);
  } catch (const Error& e) {
    if (structured) throw Error("--set " + std::string(e.what()));
    value = to_toml(TomlValue{value});  // a bare word is a string: task.name=mqar
  }
  return {key, value};
}

}  // namespace strata
