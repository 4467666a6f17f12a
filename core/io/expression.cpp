#include "core/io/expression.h"

#include <cmath>
#include <limits>

#include "core/io/expression_lexer.h"

namespace strata {

using expression::Lexer;
using expression::Token;
using expression::TokenKind;

namespace {

constexpr int kMaxDepth = 64;
constexpr int64_t kMaxRepeat = 100'000;

// Evaluates while parsing. `live` is false in the branch of a condition that is not taken: it is
// parsed, and its errors about values do not count.
class Evaluator {
 public:
  Evaluator(std::string_view source, const Scope& scope, const std::string& where)
      : lexer_(source, scope, where), scope_(scope) {
    advance();
  }

  Json run() {
    Json value = conditional();
    if (token_.kind != TokenKind::end) lexer_.fail("unexpected " + token_text());
    return value;
  }

 private:
  void advance() { token_ = lexer_.next(); }
  bool is(std::string_view sign) const {
    return (token_.kind == TokenKind::sign || token_.kind == TokenKind::name) &&
           token_.text == sign;
  }
  bool take(std::string_view sign) {
    if (!is(sign)) return false;
    advance();
    return true;
  }
  void expect(std::string_view sign) {
    if (!take(sign)) lexer_.fail("expected '" + std::string(sign) + "', got " + token_text());
  }
  std::string token_text() const {
    return token_.kind == TokenKind::end ? "the end" : "'" + std::string(token_.text) + "'";
  }

  // What a value is, for messages; the names that were missing explain a null.
  std::string described(const Json& value) const {
    if (value.is_null() && !missing_.empty()) {
      return "null (there is no " + missing_ + ")";
    }
    return value.describe();
  }
  bool truth(const Json& value) {
    if (value.kind() == Json::Kind::boolean) return value.as_bool("");
    if (live_) lexer_.fail("expected true or false, got " + described(value));
    return false;
  }

  template <class F>
  Json branch(bool taken, F parse) {
    const bool before = live_;
    live_ = live_ && taken;
    Json value = parse();
    live_ = before;
    return value;
  }

  Json conditional() {
    if (++depth_ > kMaxDepth) lexer_.fail("it is nested too deeply");
    Json value = disjunction();
    if (take("?")) {
      const bool chosen = truth(value);
      Json yes = branch(chosen, [&] { return conditional(); });
      expect(":");
      Json no = branch(!chosen, [&] { return conditional(); });
      value = chosen ? std::move(yes) : std::move(no);
    }
    --depth_;
    return value;
  }

  Json disjunction() {
    Json value = conjunction();
    while (take("or")) {
      const bool left = truth(value);
      const Json right = branch(!left, [&] { return conjunction(); });
      value = left ? Json(true) : Json(!live_ || truth(right));
    }
    return value;
  }

  Json conjunction() {
    Json value = comparison();
    while (take("and")) {
      const bool left = truth(value);
      const Json right = branch(left, [&] { return comparison(); });
      value = left ? Json(live_ && truth(right)) : Json(false);
    }
    return value;
  }

  static bool equal(const Json& a, const Json& b) {
    if (a.is_number() && b.is_number()) return a.as_double("") == b.as_double("");
    return a == b;
  }

  Json comparison() {
    Json left = coalesce();
    for (const std::string_view sign : {"==", "!=", "<=", ">=", "<", ">", "in"}) {
      if (!take(sign)) continue;
      const Json right = coalesce();
      if (sign == "==") return Json(equal(left, right));
      if (sign == "!=") return Json(!equal(left, right));
      if (sign == "in") return Json(contains(right, left));
      const double a = number(left), b = number(right);
      if (sign == "<=") return Json(a <= b);
      if (sign == ">=") return Json(a >= b);
      return Json(sign == "<" ? a < b : a > b);
    }
    return left;
  }

  bool contains(const Json& list, const Json& value) {
    if (!list.is_array()) {
      if (live_) lexer_.fail("expected a list after 'in', got " + described(list));
      return false;
    }
    for (const Json& item : list.as_array("")) {
      if (equal(item, value)) return true;
    }
    return false;
  }

  Json coalesce() {
    Json value = sum();
    while (take("??")) {
      const bool is_there = !value.is_null();
      Json right = branch(!is_there, [&] { return sum(); });
      if (!is_there) value = std::move(right);
    }
    return value;
  }

  double number(const Json& value) {
    if (value.is_number()) return value.as_double("");
    if (live_) lexer_.fail("expected a number, got " + described(value));
    return 0;
  }

  Json sum() {
    Json value = product();
    while (is("+") || is("-")) {
      const char sign = token_.text[0];
      advance();
      value = arithmetic(sign, value, product());
    }
    return value;
  }

  Json product() {
    Json value = unary();
    while (is("*") || is("/") || is("//") || is("%")) {
      const char sign = token_.text == "//" ? 'f' : token_.text[0];
      advance();
      value = arithmetic(sign, value, unary());
    }
    return value;
  }

  Json arithmetic(char sign, const Json& left, const Json& right) {
    const double x = number(left), y = number(right);
    if (!live_) return Json();
    if (left.kind() != Json::Kind::integer || right.kind() != Json::Kind::integer || sign == '/') {
      switch (sign) {
        case '+':
          return Json(x + y);
        case '-':
          return Json(x - y);
        case '*':
          return Json(x * y);
        case '/':
          return Json(x / y);
        case 'f':
          return Json(std::floor(x / y));
        default:
          return Json(std::fmod(x, y));
      }
    }
    const int64_t a = left.as_int(""), b = right.as_int("");
    int64_t result = 0;
    bool overflows = false;
    switch (sign) {
      case '+':
        overflows = __builtin_add_overflow(a, b, &result);
        break;
      case '-':
        overflows = __builtin_sub_overflow(a, b, &result);
        break;
      case '*':
        overflows = __builtin_mul_overflow(a, b, &result);
        break;
      default:
        if (b <= 0) lexer_.fail("division by " + std::to_string(b));
        result = sign == 'f' ? a / b - (a % b < 0) : a % b;
    }
    if (overflows) lexer_.fail("the result does not fit 64 bits");
    return Json(result);
  }

  Json unary() {
    if (take("-")) {
      if (++depth_ > kMaxDepth) lexer_.fail("it is nested too deeply");
      Json value = unary();
      --depth_;
      return arithmetic('-', Json(0), value);
    }
    if (take("not")) return Json(!truth(comparison()));
    return postfix();
  }

  Json postfix() {
    Json value = primary();
    for (;;) {
      if (take(".")) {
        const std::string key(token_.text);
        if (token_.kind != TokenKind::name) lexer_.fail("expected a name after '.'");
        advance();
        const Json* member = value.find(key);
        if (!member) note_missing("." + key);
        value = member ? Json(*member) : Json();
      } else if (take("[")) {
        const Json index = conditional();
        expect("]");
        value = element(value, index);
      } else {
        return value;
      }
    }
  }

  Json element(const Json& list, const Json& index) {
    if (list.is_null() || !live_) return Json();
    if (!list.is_array()) lexer_.fail("expected a list before '[', got " + described(list));
    const auto& items = list.as_array("");
    const double at = number(index);
    if (!(at >= 0 && at < double(items.size()))) {
      lexer_.fail("there is no element " + index.describe() + " in " + list.describe());
    }
    return items[size_t(at)];
  }

  Json primary() {
    if (take("(")) {
      Json value = conditional();
      expect(")");
      return value;
    }
    if (take("[")) {
      Json list = Json::array();
      while (!is("]")) {
        list.push(conditional());
        if (!take(",")) break;
      }
      expect("]");
      return list;
    }
    const Token token = token_;
    advance();
    if (token.kind == TokenKind::number) return parse_json(token.text, "a number");
    if (token.kind == TokenKind::text) return Json(token.text);
    if (token.kind != TokenKind::name) {
      lexer_.fail(token.kind == TokenKind::end ? "it ends too early"
                                               : "unexpected '" + std::string(token.text) + "'");
    }
    if (token.text == "true") return Json(true);
    if (token.text == "false") return Json(false);
    if (token.text == "null") return Json();
    if (token.text == "inf") return Json(std::numeric_limits<double>::infinity());
    if (take("(")) return call(token.text);
    if (const Json* value = scope_.variables.find(token.text)) return *value;
    if (const Json* value = scope_.object.find(token.text)) return *value;
    note_missing(std::string(token.text));
    return Json();
  }

  void note_missing(const std::string& name) {
    if (live_) missing_ += (missing_.empty() ? "" : ", ") + name;
  }

  Json call(std::string_view name) {
    Json::Array args;
    while (!is(")")) {
      args.push_back(conditional());
      if (!take(",")) break;
    }
    expect(")");
    if (!live_) return Json();
    if (name == "len" && args.size() == 1) {
      if (args[0].is_array()) return Json(int64_t(args[0].as_array("").size()));
      if (args[0].is_string()) return Json(int64_t(args[0].as_string("").size()));
      lexer_.fail("len() expects a list or a text, got " + described(args[0]));
    }
    if (name == "ceil" && args.size() == 1) {
      return Json(Json(std::ceil(number(args[0]))).as_int("ceil()"));
    }
    if (name == "repeat" && args.size() == 2) {
      const double count = number(args[1]);
      if (!(count >= 0 && count <= double(kMaxRepeat)) || count != std::floor(count)) {
        lexer_.fail("repeat() expects a count up to " + std::to_string(kMaxRepeat) + ", got " +
                    args[1].describe());
      }
      Json list = Json::array();
      for (int64_t i = 0; i < int64_t(count); ++i) list.push(args[0]);
      return list;
    }
    lexer_.fail("there is no function " + std::string(name) + "() of " +
                std::to_string(args.size()) + " values; known: len(x), ceil(x), repeat(x, n)");
  }

  Lexer lexer_;
  Scope scope_;
  Token token_;
  std::string missing_;  // names that the object did not have, so far
  bool live_ = true;
  int depth_ = 0;
};

}  // namespace

Json evaluate(std::string_view expression, const Scope& scope, const std::string& where) {
  return Evaluator(expression, scope, where).run();
}

std::string substitute(std::string_view expression, const Scope& scope, const std::string& where) {
  Lexer lexer(expression, scope, where);
  std::string out;
  size_t copied = 0;
  for (Token token = lexer.next(); token.kind != TokenKind::end; token = lexer.next()) {
    if (token.kind != TokenKind::name) continue;
    const Json* value = scope.variables.find(token.text);
    if (!value) value = scope.object.find(token.text);
    if (!value) continue;
    out += expression.substr(copied, token.begin - copied);
    out += value->dump();
    copied = token.end;
  }
  return out + std::string(expression.substr(copied));
}

}  // namespace strata
