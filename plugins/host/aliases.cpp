// The aliases that a plugin's card lists: symbols with preset options.
#include <cctype>
#include <charconv>

#include "plugins/host/handshake.h"

namespace strata {
namespace {

class Reader {
 public:
  Reader(const std::string& text, const std::string& path) : text_(text), path_(path) {}

  std::vector<PluginAlias> read() {
    std::vector<PluginAlias> aliases;
    for (skip(); at_ < text_.size(); skip()) {
      PluginAlias a;
      a.symbol = text_[at_++];
      if (peek() == '{') {
        do {
          ++at_;
          std::string key = word();
          if (key.empty() || peek() != '=') refuse();
          ++at_;
          a.preset[key] = value();
        } while (peek() == ',');
        if (peek() != '}') refuse();
        ++at_;
      }
      aliases.push_back(std::move(a));
    }
    return aliases;
  }

 private:
  [[noreturn]] void refuse() const {
    throw Error(path_ + ": its aliases '" + text_ + "' must look like w{key=value,key=value}");
  }
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  void skip() {
    while (peek() == ' ') ++at_;
  }
  std::string word() {
    const size_t begin = at_;
    while (at_ < text_.size() && std::string_view("=,{} ").find(text_[at_]) == std::string::npos)
      ++at_;
    return text_.substr(begin, at_ - begin);
  }
  OptionValue value() {
    try {
      return parse_option_value(word());
    } catch (const Error&) {
      refuse();
    }
  }

  const std::string& text_;
  const std::string& path_;
  size_t at_ = 0;
};

}  // namespace

OptionValue parse_option_value(const std::string& text) {
  if (text == "true") return true;
  if (text == "false") return false;
  const char *begin = text.data(), *end = begin + text.size();
  int64_t i;
  if (const auto r = std::from_chars(begin, end, i); r.ec == std::errc{} && r.ptr == end) return i;
  double d;
  if (const auto r = std::from_chars(begin, end, d); r.ec == std::errc{} && r.ptr == end) return d;
  if (text.size() >= 2 && text.front() == '"' && text.back() == '"')
    return text.substr(1, text.size() - 2);
  throw Error("'" + text + "' is no value; write true, 64, 0.5 or \"text\"");
}

std::vector<PluginAlias> parse_aliases(const std::string& text, const std::string& path) {
  return Reader(text, path).read();
}

}  // namespace strata
