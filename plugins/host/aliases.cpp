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
    const std::string w = word();
    if (w == "true") return true;
    if (w == "false") return false;
    const char* end = w.data() + w.size();
    int64_t i;
    if (const auto r = std::from_chars(w.data(), end, i); r.ec == std::errc{} && r.ptr == end)
      return i;
    double d;
    if (const auto r = std::from_chars(w.data(), end, d); r.ec == std::errc{} && r.ptr == end)
      return d;
    if (w.size() < 2 || w.front() != '"' || w.back() != '"') refuse();
    return w.substr(1, w.size() - 2);
  }

  const std::string& text_;
  const std::string& path_;
  size_t at_ = 0;
};

}  // namespace

std::vector<PluginAlias> parse_aliases(const std::string& text, const std::string& path) {
  return Reader(text, path).read();
}

}  // namespace strata
