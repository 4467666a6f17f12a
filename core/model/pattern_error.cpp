// Character classes and the message with a caret.
#include "core/model/pattern_ast.h"

namespace strata {

namespace pattern {

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) { return is_letter(c) || c == '_'; }

size_t utf8_length(std::string_view text, size_t pos) {
  auto byte = [&](size_t i) {
    return pos + i < text.size() ? static_cast<unsigned char>(text[pos + i]) : 0u;
  };
  const unsigned first = byte(0);
  if (pos >= text.size()) return 0;
  if (first < 0x80) return 1;
  const size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  // Overlong forms, surrogates and codes above 10FFFF.
  const unsigned second = byte(1);
  if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F) ||
      (first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F)) {
    return 0;
  }
  return length;
}

}  // namespace pattern

bool is_pattern_symbol(char c) {
  return pattern::is_letter(c) ||
         (c != '\0' && std::string_view("*+-#%!?~$").find(c) != std::string_view::npos);
}

bool is_wiring_key(std::string_view key) {
  for (std::string_view known :
       {"in", "residual", "out", "to", "in_scale", "out_scale", "norm", "lora"}) {
    if (key == known) return true;
  }
  return false;
}

// Shows at most 40 characters before the place and 40 after it; one column per character.
void throw_at(std::string_view text, size_t position, const std::string& sentence) {
  constexpr size_t kSide = 40;
  std::vector<std::string> shown;
  size_t column = 0;  // of the place, in characters
  for (size_t i = 0; i < text.size();) {
    if (i <= position) column = shown.size();
    const size_t length = pattern::utf8_length(text, i);
    const unsigned char byte = static_cast<unsigned char>(text[i]);
    shown.push_back(byte < 0x20 || byte == 0x7F ? " "
                    : length == 0               ? "?"
                                                : std::string(text.substr(i, length)));
    i += std::max<size_t>(1, length);
  }
  if (position >= text.size()) column = shown.size();
  const size_t begin = column > kSide + 3 ? column - kSide : 0;
  const size_t end = shown.size() > column + kSide + 3 ? column + kSide : shown.size();
  std::string line = begin > 0 ? "..." : "";
  const size_t indent = line.size() + column - begin;
  for (size_t i = begin; i < end; ++i) line += shown[i];
  if (end < shown.size()) line += "...";
  throw Error("pattern, character " + std::to_string(column + 1) + ": " + sentence + "\n  " + line +
              "\n  " + std::string(indent, ' ') + "^");
}

}  // namespace strata
