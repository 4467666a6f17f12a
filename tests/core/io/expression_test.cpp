#include "core/io/expression.h"

#include <doctest/doctest.h>

#include "tests/support/error_text.h"

using namespace strata;
using strata::test::error_text;

namespace {

const Json& config() {
  static const Json json = parse_json(
      "{\"hidden\": 48, \"heads\": 8, \"pattern\": \"M-\", \"at\": [1, 3], \"eps\": 1e-5,"
      " \"none\": null, \"rope\": {\"theta\": 5e4}, \"limit\": [0, Infinity], \"tie\": false}",
      "c");
  return json;
}

const std::string kOrigin = "config.json";

std::string value(std::string_view expression) {
  static const Json variables = parse_json("{\"layer\": 3}", "v");
  return evaluate(expression, {config(), variables, kOrigin}, "f.toml: d").dump();
}

std::string refusal(std::string_view expression) {
  return error_text([&] { value(expression); });
}

}  // namespace

TEST_CASE("expression: values") {
  CHECK(value("2 * hidden + 3 * (heads - 1)") == "117");
  CHECK(value("hidden // 5") == "9");
  CHECK(value("hidden / 5") == "9.6");
  CHECK(value("-7 // 2") == "-4");
  CHECK(value("hidden % 5") == "3");
  CHECK(value("head_dim ?? hidden // heads") == "6");
  CHECK(value("none ?? eps") == "1e-05");
  CHECK(value("rope.theta ?? 1.0") == "50000.0");
  CHECK(value("scaling.factor.x ?? limit[1]") == "Infinity");
  CHECK(value("layer in at ? 'attention' : 'mamba'") == "\"attention\"");
  CHECK(value("2 in at ? 'attention' : 'mamba'") == "\"mamba\"");
  CHECK(value("not tie and none == null and hidden >= 48") == "true");
  CHECK(value("tie or 1 == 1.0") == "true");
  CHECK(value("repeat('M', 3)") == "[\"M\", \"M\", \"M\"]");
  CHECK(value("len(pattern) + len(at)") == "4");
  CHECK(value("ceil(hidden / 5)") == "10");
  CHECK(value("[1, 'a', true]") == "[1, \"a\", true]");
  // What is not taken may not fail.
  CHECK(value("true ? 1 : missing * 2") == "1");
  CHECK(value("heads ?? missing * 2") == "8");
  CHECK(value("false and missing > 2") == "false");
}

TEST_CASE("expression: errors name the place and the missing key") {
  CHECK(
      refusal("2 * missing") ==
      "f.toml: d: in the expression \"2 * missing\" over config.json: expected a number, got null "
      "(there is no missing)");
  CHECK(refusal("hidden +").find("it ends too early") != std::string::npos);
  CHECK(refusal("hidden heads").find("unexpected 'heads'") != std::string::npos);
  CHECK(refusal("hidden // 0").find("division by 0") != std::string::npos);
  CHECK(refusal("9223372036854775807 + 1").find("64 bits") != std::string::npos);
  CHECK(refusal("at[5]").find("there is no element 5") != std::string::npos);
  CHECK(refusal("foo(1)").find("there is no function foo()") != std::string::npos);
  CHECK(refusal("'abc").find("closing quote") != std::string::npos);
  CHECK(refusal("a $ b").find("unexpected '$'") != std::string::npos);
  CHECK(refusal("hidden ? 1 : 2").find("expected true or false, got 48") != std::string::npos);
  CHECK(refusal(std::string(100'000, '(')).find("nested too deeply") != std::string::npos);
  CHECK(refusal(std::string(100'000, '-') + "1").find("nested too deeply") != std::string::npos);
  CHECK(refusal("repeat(1, 1e12)").find("a count up to") != std::string::npos);
}

TEST_CASE("expression: with values in place of names") {
  CHECK(substitute("2 * hidden + heads", {config(), Json(), kOrigin}, "f") == "2 * 48 + 8");
}
