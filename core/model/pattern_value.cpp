// Values between braces: TOML booleans, integers, floats and strings; text of plain words may stand
// without quotes.
#include <charconv>
#include <cmath>

#include "core/model/pattern_ast.h"

namespace strata::pattern {
namespace {

constexpr size_t kMaxValueBytes = 256;

bool is_word_char(char c) {
  return is_name_start(c) || is_digit(c) || c == '+' || c == '-' || c == '.';
}

bool is_word(std::string_view s) {
  if (s.empty() || !is_name_start(s[0])) return false;
  for (char c : s) {
    if (!is_word_char(c)) return false;
  }
  return s != "true" && s != "false" && s != "inf" && s != "nan";
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

// `pos` stands behind the backslash.
void parse_escape(std::string_view text, size_t& pos, std::string& out) {
  static constexpr std::string_view kNames = "btnfr\"\\", kValues = "\b\t\n\f\r\"\\";
  const size_t start = pos - 1;
  const char c = pos < text.size() ? text[pos++] : '\0';
  if (const size_t k = kNames.find(c); k != kNames.npos) {
    out += kValues[k];
    return;
  }
  const size_t digits = c == 'u' ? 4 : c == 'U' ? 8 : 0;
  if (digits == 0)
    throw_at(text, start,
             "this escape is not one of \\b \\t \\n \\f \\r \\\" \\\\ \\uXXXX \\UXXXXXXXX");
  uint32_t code = 0;
  const std::string_view hex = text.substr(pos, digits);
  const auto [end, ec] = std::from_chars(hex.data(), hex.data() + hex.size(), code, 16);
  const bool scalar = code <= 0x10FFFF && !(code >= 0xD800 && code <= 0xDFFF);
  if (hex.size() < digits || ec != std::errc() || end != hex.data() + digits || !scalar) {
    throw_at(text, start, "this escape does not name a Unicode character");
  }
  append_utf8(out, code);
  pos += digits;
}

std::string parse_quoted(std::string_view text, size_t& pos) {
  const size_t start = pos;
  const char quote = text[pos++];
  std::string out;
  while (pos < text.size() && text[pos] != quote) {
    if (out.size() > kMaxValueBytes) {
      throw_at(text, start,
               "this text is longer than " + std::to_string(kMaxValueBytes) + " bytes");
    }
    const size_t length = utf8_length(text, pos);
    const unsigned char byte = static_cast<unsigned char>(text[pos]);
    if (length == 0) throw_at(text, pos, "this byte is not valid UTF-8");
    if (byte < 0x20 || byte == 0x7F)
      throw_at(text, pos, "a control character must be written as an escape, such as \\n");
    if (text[pos] == '\\' && quote == '"') {
      ++pos;
      parse_escape(text, pos, out);
    } else {
      out.append(text.substr(pos, length));
      pos += length;
    }
  }
  if (pos >= text.size()) throw_at(text, start, "this quote is never closed");
  ++pos;
  return out;
}

// An unquoted run; white space is skipped beside '+', so that `h + embed` is one word.
std::string read_run(std::string_view text, size_t& pos) {
  std::string run;
  while (pos < text.size()) {
    if (is_word_char(text[pos])) {
      run += text[pos++];
      continue;
    }
    size_t next = pos;
    while (next < text.size() && is_space(text[next])) ++next;
    const bool beside_plus = next < text.size() && next > pos && !run.empty() &&
                             (run.back() == '+' ? is_word_char(text[next]) : text[next] == '+');
    if (!beside_plus) break;
    pos = next;
  }
  return run;
}

// TOML number without its underscores; false when the underscores or digits are misplaced.
bool plain_digits(std::string_view run, std::string& out) {
  for (size_t i = 0; i < run.size(); ++i) {
    if (run[i] != '_') {
      out += run[i];
    } else if (i == 0 || i + 1 == run.size() ||
               !std::isxdigit(static_cast<unsigned char>(run[i - 1])) ||
               !std::isxdigit(static_cast<unsigned char>(run[i + 1]))) {
      return false;
    }
  }
  return !out.empty();
}

std::optional<int64_t> parse_integer(std::string_view run, bool& overflow) {
  const bool negative = run[0] == '-', sign = negative || run[0] == '+';
  std::string_view rest = run.substr(sign);
  int base = 10;
  if (!sign && rest.size() > 2 && rest[0] == '0') {
    base = rest[1] == 'x' ? 16 : rest[1] == 'o' ? 8 : rest[1] == 'b' ? 2 : 10;
    if (base != 10) rest.remove_prefix(2);
  }
  std::string digits = negative ? "-" : "";
  if (rest.empty() || !std::isxdigit(static_cast<unsigned char>(rest[0])) ||
      !plain_digits(rest, digits))
    return {};
  if (base == 10 && rest.size() > 1 && rest[0] == '0') return {};
  int64_t value = 0;
  const auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (end != digits.data() + digits.size()) return {};
  overflow = ec == std::errc::result_out_of_range;
  return value;
}

// TOML asks for digits on both sides of the point.
std::optional<double> parse_float(std::string_view run, bool& overflow) {
  const bool negative = run[0] == '-';
  const std::string_view rest = run.substr(negative || run[0] == '+');
  if (rest == "inf") return negative ? -HUGE_VAL : HUGE_VAL;
  if (rest.empty() || !is_digit(rest[0])) return {};
  if (rest[0] == '0' && rest.size() > 1 && is_digit(rest[1])) return {};
  const size_t point = rest.find('.');
  if (point != rest.npos && (point + 1 >= rest.size() || !is_digit(rest[point + 1]))) return {};
  std::string digits;
  if (!plain_digits(rest, digits)) return {};
  // from_chars takes "1e+5" but no sign in front.
  double value = 0;
  const auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (end != digits.data() + digits.size()) return {};
  overflow = ec == std::errc::result_out_of_range;
  return negative && value != 0 ? -value : value;
}

}  // namespace

OptionValue parse_value(std::string_view text, size_t& pos) {
  const size_t start = pos;
  if (pos < text.size() && (text[pos] == '"' || text[pos] == '\'')) return parse_quoted(text, pos);
  const std::string run = read_run(text, pos);
  if (run.empty()) throw_at(text, start, "a value is missing here");
  if (run.size() > kMaxValueBytes) {
    throw_at(text, start, "this value is longer than " + std::to_string(kMaxValueBytes) + " bytes");
  }
  if (run == "true") return true;
  if (run == "false") return false;
  if (run == "nan" || run == "+nan" || run == "-nan")
    throw_at(text, start, "nan cannot be an option's value");
  bool overflow = false;
  OptionValue value;
  if (const auto integer = parse_integer(run, overflow)) {
    value = *integer;
  } else if (const auto real = parse_float(run, overflow)) {
    value = *real;
  } else if (is_word(run)) {
    return run;
  } else {
    throw_at(text, start, "'" + run + "' is neither a number nor a word; put text between quotes");
  }
  if (overflow) throw_at(text, start, "'" + run + "' does not fit into 64 bits");
  return value;
}

std::string value_text(const OptionValue& value) {
  if (const bool* b = std::get_if<bool>(&value)) return *b ? "true" : "false";
  if (const int64_t* i = std::get_if<int64_t>(&value)) return std::to_string(*i);
  if (const double* d = std::get_if<double>(&value)) {
    char buffer[40];
    const auto end = std::to_chars(buffer, buffer + sizeof buffer, *d).ptr;
    std::string s(buffer, end);
    return s.find_first_of(".ein") == s.npos ? s + ".0" : s;
  }
  const std::string& s = std::get<std::string>(value);
  if (is_word(s)) return s;
  std::string out = "\"";
  for (char c : s) {
    const unsigned char byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F) {
      static constexpr char kHex[] = "0123456789abcdef";
      out += std::string("\\u00") + kHex[byte >> 4] + kHex[byte & 15];
    } else {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
  }
  return out + '"';
}

}  // namespace strata::pattern
