// The JSON reader: one pass over the text, recursion bounded by kJsonMaxDepth.
#include <charconv>
#include <cmath>
#include <limits>
#include <unordered_set>

#include "core/io/file.h"
#include "core/io/json.h"

namespace strata {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// Length of the UTF-8 sequence at `at` (RFC 3629), or 0 if it is not valid.
size_t utf8_length(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(at);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xC2 && lead <= 0xDF   ? 2
                        : lead >= 0xE0 && lead <= 0xEF ? 3
                        : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                       : 0;
  if (length == 0 || text.size() - at < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(at + i) & 0xC0) != 0x80) return 0;
  }
  const unsigned second = byte(at + 1);
  if (lead == 0xE0 && second < 0xA0) return 0;   // overlong
  if (lead == 0xED && second >= 0xA0) return 0;  // surrogate
  if (lead == 0xF0 && second < 0x90) return 0;   // overlong
  if (lead == 0xF4 && second >= 0x90) return 0;  // above U+10FFFF
  return length;
}

void append_utf8(std::string& out, uint32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | code >> 6);
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | code >> 12);
    out += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | code >> 18);
    out += static_cast<char>(0x80 | (code >> 12 & 0x3F));
    out += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  }
}

class Parser {
 public:
  Parser(std::string_view text, std::string_view where) : text_(text), where_(where) {}

  Json parse() {
    if (text_.substr(0, 3) == "\xEF\xBB\xBF") at_ = 3;  // byte order mark
    skip_space();
    Json value = parse_value(0);
    skip_space();
    if (at_ != text_.size()) fail("the end of the file");
    return value;
  }

 private:
  [[noreturn]] void fail_at(size_t at, const std::string& problem) const {
    size_t line = 1;
    for (size_t i = 0; i < at && i < text_.size(); ++i) line += text_[i] == '\n';
    throw Error(where_ + ": line " + std::to_string(line) + ", byte " + std::to_string(at) + ": " +
                problem);
  }
  [[noreturn]] void fail(const std::string& expected) const {
    fail_at(at_, "expected " + expected + ", got " + here());
  }

  std::string here() const {
    if (at_ >= text_.size()) return "the end of the file";
    const auto c = static_cast<unsigned char>(text_[at_]);
    if (c >= 0x20 && c < 0x7F) return std::string("'") + text_[at_] + "'";
    static constexpr char kHex[] = "0123456789abcdef";
    return std::string("byte 0x") + kHex[c >> 4] + kHex[c & 15];
  }

  bool more() const { return at_ < text_.size(); }
  bool next_is(char c) const { return more() && text_[at_] == c; }
  void skip_space() {
    while (more() &&
           (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) {
      ++at_;
    }
  }
  void expect(char c) {
    if (!next_is(c)) fail(std::string("'") + c + "'");
    ++at_;
  }
  bool take(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  Json parse_value(int depth) {
    if (!more()) fail("a value");
    switch (text_[at_]) {
      case '{':
        return parse_object(enter(depth));
      case '[':
        return parse_array(enter(depth));
      case '"':
        return Json(parse_string());
      case 't':
        if (take("true")) return Json(true);
        break;
      case 'f':
        if (take("false")) return Json(false);
        break;
      case 'n':
        if (take("null")) return Json();
        break;
      case 'I':
        if (take("Infinity")) return Json(kInfinity);
        break;
      case 'N':
        if (take("NaN")) return Json(kNaN);
        break;
      case '-':
        if (take("-Infinity")) return Json(-kInfinity);
        return parse_number();
      default:
        if (text_[at_] >= '0' && text_[at_] <= '9') return parse_number();
    }
    fail("a value");
  }

  int enter(int depth) const {
    if (depth == kJsonMaxDepth) {
      fail_at(at_, "nested deeper than " + std::to_string(kJsonMaxDepth) + " levels");
    }
    return depth + 1;
  }

  Json parse_array(int depth) {
    Json array = Json::array();
    ++at_;
    skip_space();
    if (next_is(']')) return ++at_, array;
    for (;;) {
      skip_space();
      array.push(parse_value(depth));
      skip_space();
      if (next_is(']')) return ++at_, array;
      if (!next_is(',')) fail("',' or ']'");
      ++at_;
    }
  }

  Json parse_object(int depth) {
    Json::Object members;
    std::unordered_set<std::string> keys;
    ++at_;
    skip_space();
    if (next_is('}')) return ++at_, Json::object();
    for (;;) {
      skip_space();
      if (!next_is('"')) fail("a key in double quotes");
      const size_t key_at = at_;
      std::string key = parse_string();
      if (!keys.insert(key).second) fail_at(key_at, "the key \"" + key + "\" is there twice");
      skip_space();
      expect(':');
      skip_space();
      members.push_back({std::move(key), parse_value(depth)});
      skip_space();
      if (next_is('}')) break;
      if (!next_is(',')) fail("',' or '}'");
      ++at_;
    }
    ++at_;
    return object_of(std::move(members));
  }

  // {"__float__": "Infinity"} is how transformers 5 writes a number that JSON does not have.
  static Json object_of(Json::Object members) {
    if (members.size() == 1 && members[0].key == "__float__" && members[0].value.is_string()) {
      const std::string& text = members[0].value.as_string("");
      if (text == "Infinity") return Json(kInfinity);
      if (text == "-Infinity") return Json(-kInfinity);
      if (text == "NaN") return Json(kNaN);
    }
    return Json::object(std::move(members));
  }

  uint32_t parse_hex4() {
    uint32_t code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = more() ? text_[at_] : '\0';
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) fail("four hexadecimal digits after \\u");
      code = code * 16 + static_cast<uint32_t>(digit);
    }
    return code;
  }

  void parse_escape(std::string& out) {
    const size_t start = at_;
    ++at_;  // the backslash
    if (!more()) fail("an escape");
    const char c = text_[at_];
    static constexpr std::string_view kFrom = "\"\\/bfnrt", kTo = "\"\\/\b\f\n\r\t";
    if (const size_t i = kFrom.find(c); i != std::string_view::npos) {
      ++at_;
      out += kTo[i];
      return;
    }
    if (c != 'u') fail("one of \" \\ / b f n r t u after the backslash");
    ++at_;
    uint32_t code = parse_hex4();
    if (code >= 0xD800 && code < 0xDC00) {
      uint32_t low = 0;
      if (take("\\u")) low = parse_hex4();
      if (low < 0xDC00 || low > 0xDFFF) fail_at(start, "half of a surrogate pair in a string");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    } else if (code >= 0xDC00 && code < 0xE000) {
      fail_at(start, "half of a surrogate pair in a string");
    }
    append_utf8(out, code);
  }

  std::string parse_string() {
    const size_t start = at_;
    ++at_;
    std::string out;
    for (;;) {
      if (!more()) fail_at(start, "this string has no end");
      const char c = text_[at_];
      if (c == '"') return ++at_, out;
      if (c == '\\') {
        parse_escape(out);
        continue;
      }
      if (static_cast<unsigned char>(c) < 0x20) fail("an escape for a control character");
      const size_t length = utf8_length(text_, at_);
      if (length == 0) fail_at(at_, "a string that is not valid UTF-8");
      out.append(text_, at_, length);
      at_ += length;
    }
  }

  void digits() {
    if (!more() || text_[at_] < '0' || text_[at_] > '9') fail("a digit");
    while (more() && text_[at_] >= '0' && text_[at_] <= '9') ++at_;
  }

  Json parse_number() {
    const size_t start = at_;
    bool is_real = false;
    if (next_is('-')) ++at_;
    if (next_is('0')) {
      ++at_;
      if (more() && text_[at_] >= '0' && text_[at_] <= '9') fail("no digit after a leading 0");
    } else {
      digits();
    }
    if (next_is('.')) {
      is_real = true;
      ++at_;
      digits();
    }
    if (next_is('e') || next_is('E')) {
      is_real = true;
      ++at_;
      if (next_is('+') || next_is('-')) ++at_;
      digits();
    }
    const char* first = text_.data() + start;
    const char* last = text_.data() + at_;
    if (!is_real) {
      int64_t integer = 0;
      if (std::from_chars(first, last, integer).ec == std::errc()) return Json(integer);
    }
    double real = 0;
    if (std::from_chars(first, last, real).ec != std::errc()) {
      fail_at(start, "the number " + std::string(first, last) + " does not fit a double");
    }
    return Json(real);
  }

  std::string_view text_;
  std::string where_;
  size_t at_ = 0;
};

}  // namespace

bool is_utf8(std::string_view text, size_t* bad_byte) {
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8_length(text, at);
    if (length == 0) {
      if (bad_byte) *bad_byte = at;
      return false;
    }
    at += length;
  }
  return true;
}

Json parse_json(std::string_view text, std::string_view where) {
  return Parser(text, where).parse();
}

Json read_json(const std::string& path, size_t max_bytes) {
  return parse_json(read_file(path, max_bytes), path);
}

}  // namespace strata
