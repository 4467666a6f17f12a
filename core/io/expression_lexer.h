// The words of an expression (core/io/expression.h).
#pragma once

#include <string>
#include <string_view>

#include "core/io/expression.h"

namespace strata::expression {

enum class TokenKind { end, number, text, name, sign };
struct Token {
  TokenKind kind = TokenKind::end;
  std::string_view text;  // of a text without its quotes
  size_t begin = 0, end = 0;
};

class Lexer {
 public:
  Lexer(std::string_view source, const Scope& scope, const std::string& where)
      : source_(source), where_(where), origin_(scope.origin) {}

  [[noreturn]] void fail(const std::string& problem) const {
    throw Error(where_ + ": in the expression \"" + std::string(source_) + "\" over " + origin_ +
                ": " + problem);
  }

  Token next() {
    while (at_ < source_.size() && source_[at_] == ' ') ++at_;
    const size_t begin = at_;
    if (at_ == source_.size()) return {TokenKind::end, {}, begin, begin};
    const char c = source_[at_];
    if (is_letter(c))
      return take(TokenKind::name, [](char d) { return is_letter(d) || is_digit(d); });
    if (is_digit(c)) return number();
    if (c == '\'') {
      const size_t close = source_.find('\'', at_ + 1);
      if (close == std::string_view::npos) fail("a text has no closing quote");
      at_ = close + 1;
      return {TokenKind::text, source_.substr(begin + 1, close - begin - 1), begin, at_};
    }
    for (const std::string_view sign : {"??", "==", "!=", "<=", ">=", "//"}) {
      if (source_.substr(at_, 2) == sign) return at_ += 2, Token{TokenKind::sign, sign, begin, at_};
    }
    if (std::string_view("?:<>+-*/%.[](),").find(c) == std::string_view::npos) {
      fail(std::string("unexpected '") + c + "'");
    }
    ++at_;
    return {TokenKind::sign, source_.substr(begin, 1), begin, at_};
  }

 private:
  static bool is_digit(char c) { return c >= '0' && c <= '9'; }
  static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  }
  template <class F>
  Token take(TokenKind kind, F belongs) {
    const size_t begin = at_;
    while (at_ < source_.size() && belongs(source_[at_])) ++at_;
    return {kind, source_.substr(begin, at_ - begin), begin, at_};
  }
  Token number() {
    const size_t begin = at_;
    take(TokenKind::number, is_digit);
    // "0.5" and "1e-5", but not "a[0].b" or "1 // 2".
    if (at_ + 1 < source_.size() && source_[at_] == '.' && is_digit(source_[at_ + 1])) {
      ++at_;
      take(TokenKind::number, is_digit);
    }
    if (at_ < source_.size() && source_[at_] == 'e') {
      ++at_;
      if (at_ < source_.size() && (source_[at_] == '-' || source_[at_] == '+')) ++at_;
      take(TokenKind::number, is_digit);
    }
    return {TokenKind::number, source_.substr(begin, at_ - begin), begin, at_};
  }

  std::string_view source_;
  const std::string& where_;
  const std::string& origin_;
  size_t at_ = 0;
};

}  // namespace strata::expression
