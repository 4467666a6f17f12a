#include "core/io/toml.h"

#include <toml++/toml.h>

#include "core/contract/options.h"

namespace strata {
namespace {

constexpr size_t kMaxBytes = 1 << 20;
constexpr int kMaxDepth = 32;

bool is_bare(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-'; }

// The parser and its tree recurse over nesting, so depth is bounded before parsing: brackets that
// are open at once, and the parts of one dotted key.
class DepthScan {
 public:
  DepthScan(std::string_view text, const std::string& origin) : text_(text), origin_(origin) {}

  void run() {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '#') {
        while (at_ < text_.size() && text_[at_] != '\n') ++at_;
        continue;
      }
      if (c == '"' || c == '\'') {
        skip_string(c);
        continue;
      }
      if (c == '\n') ++line_;
      if (c == '[' || c == '{') check(++open_);
      if ((c == ']' || c == '}') && open_ > 0) --open_;
      if (c == '.') {
        check(++dots_);
      } else if (!is_bare(c) && c != ' ' && c != '\t') {
        dots_ = 0;
      }
      ++at_;
    }
  }

 private:
  void check(int depth) const {
    if (depth > kMaxDepth) {
      throw Error(origin_ + ":" + std::to_string(line_) + ": nested deeper than " +
                  std::to_string(kMaxDepth) + " levels, which no key needs");
    }
  }

  void skip_string(char quote) {
    const std::string triple(3, quote);
    const bool multi = text_.substr(at_, 3) == triple;
    at_ += multi ? 3 : 1;
    while (at_ < text_.size()) {
      if (quote == '"' && text_[at_] == '\\') {
        at_ += 2;
      } else if (multi && text_.substr(at_, 3) == triple) {
        at_ += 3;
        return;
      } else if (!multi && (text_[at_] == quote || text_[at_] == '\n')) {
        at_ += text_[at_] == quote;
        return;
      } else {
        line_ += text_[at_] == '\n';
        ++at_;
      }
    }
  }

  std::string_view text_;
  const std::string& origin_;
  size_t at_ = 0;
  int line_ = 1, open_ = 0, dots_ = 0;
};

std::string place(const std::string& origin, int line) {
  return line > 0 ? origin + ":" + std::to_string(line) : origin;
}

std::string source_line(std::string_view text, int line) {
  for (; line > 1; --line) {
    const size_t end = text.find('\n');
    if (end == std::string_view::npos) return {};
    text.remove_prefix(end + 1);
  }
  return std::string(text.substr(0, text.find('\n')));
}

TomlValue convert(const toml::node& node, const std::string& origin) {
  TomlValue out;
  out.line = int(node.source().begin.line);
  if (const auto* b = node.as_boolean()) {
    out.value = b->get();
  } else if (const auto* i = node.as_integer()) {
    out.value = int64_t{i->get()};
  } else if (const auto* f = node.as_floating_point()) {
    out.value = f->get();
  } else if (const auto* s = node.as_string()) {
    out.value = s->get();
  } else if (const auto* a = node.as_array()) {
    TomlList list;
    for (const toml::node& item : *a) list.push_back(convert(item, origin));
    out.value = std::move(list);
  } else if (const auto* t = node.as_table()) {
    TomlTable table;
    for (const auto& [key, item] : *t) {
      table.emplace(std::string(key.str()), convert(item, origin));
    }
    out.value = std::move(table);
  } else {
    throw Error(place(origin, out.line) + ": dates and times are not used here; write a string");
  }
  return out;
}

}  // namespace

TomlTable parse_toml(std::string_view text, const std::string& origin) {
  if (text.size() > kMaxBytes) {
    throw Error(origin + ": a TOML file of " + std::to_string(text.size()) +
                " bytes; at most 1 MiB is read");
  }
  DepthScan(text, origin).run();
  try {
    const toml::table parsed = toml::parse(text, std::string_view(origin));
    TomlValue root = convert(parsed, origin);
    return std::move(*root.get<TomlTable>());
  } catch (const toml::parse_error& e) {
    const int line = int(e.source().begin.line);
    const std::string written = source_line(text, line);
    std::string advice;
    if (written.find("layers.*") != std::string::npos) {
      advice = " (a key of '*' alone is not TOML: write [layers.\"*\"] or [layers.attention])";
    }
    std::string what(e.description());
    for (char& c : what) c = c == '\n' ? ' ' : c;
    throw Error(place(origin, line) + ": " + what + advice);
  }
}

TomlValue parse_toml_value(std::string_view text, const std::string& origin) {
  if (text.find('\n') != std::string_view::npos) throw Error(origin + ": a value is one line");
  TomlTable table = parse_toml("value = " + std::string(text), origin);
  if (table.size() != 1) throw Error(origin + ": expected one TOML value");
  return std::move(table.at("value"));
}

std::string toml_key(std::string_view key) {
  bool bare = !key.empty();
  for (char c : key) bare = bare && is_bare(c);
  return bare ? std::string(key) : to_string(OptionValue(std::string(key)));
}

std::string to_toml(const TomlValue& value) {
  return std::visit(
      [](const auto& v) -> std::string {
        using T = std::decay_t<decltype(v)>;
        std::string out;
        if constexpr (std::is_same_v<T, TomlList>) {
          for (const TomlValue& item : v) out += (out.empty() ? "" : ", ") + to_toml(item);
          return "[" + out + "]";
        } else if constexpr (std::is_same_v<T, TomlTable>) {
          for (const auto& [key, item] : v) {
            out += (out.empty() ? " " : ", ") + toml_key(key) + " = " + to_toml(item);
          }
          return out.empty() ? "{}" : "{" + out + " }";
        } else {
          return to_string(OptionValue(v));
        }
      },
      value.value);
}

const char* toml_type_name(const TomlValue& value) {
  constexpr const char* kNames[] = {"a boolean", "an integer", "a number",
                                    "a string",  "a list",     "a table"};
  return kNames[value.value.index()];
}

static void add_leaves(const TomlTable& table, const std::string& prefix,
                       std::vector<std::pair<std::string, std::string>>& out) {
  for (const auto& [key, value] : table) {
    const std::string name = prefix + toml_key(key);
    if (const TomlTable* inner = value.get<TomlTable>())
      add_leaves(*inner, name + ".", out);
    else
      out.emplace_back(name, to_toml(value));
  }
}

std::vector<std::pair<std::string, std::string>> toml_leaves(const TomlTable& table) {
  std::vector<std::pair<std::string, std::string>> out;
  add_leaves(table, "", out);
  return out;
}

}  // namespace strata
