#include "core/io/json.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "tests/support/error_text.h"

using strata::Json;
using strata::parse_json;
using strata::test::error_text;

namespace {

std::string refusal(std::string_view text) {
  return error_text([&] { parse_json(text, "x.json"); });
}

std::string nested(int depth, char open, char close) {
  return std::string(size_t(depth), open) + std::string(size_t(depth), close);
}

}  // namespace

TEST_CASE("json: values of every kind") {
  const Json json = parse_json(
      " {\"a\": [1, -2.5e3, true, null], \"b\": {\"c\": \"x\\n\\u00e9\\ud83d\\ude00\"}} ", "t");
  const auto& a = json.at("a", "t").as_array("t");
  CHECK(a[0].as_int("t") == 1);
  CHECK(a[1].as_double("t") == -2500);
  CHECK(a[1].as_int("t") == -2500);
  CHECK(a[2].as_bool("t"));
  CHECK(a[3].is_null());
  CHECK(json.at("b", "t").at("c", "t").as_string("t") == "x\n\xC3\xA9\xF0\x9F\x98\x80");
  CHECK(json.find("zz") == nullptr);
  CHECK(parse_json("9223372036854775807", "t").as_int("t") == INT64_MAX);
  CHECK(parse_json("9223372036854775808", "t").kind() == Json::Kind::real);
  CHECK(parse_json("\xEF\xBB\xBF[]", "t").is_array());
}

TEST_CASE("json: infinities and NaN as configs write them") {
  const Json json = parse_json(
      "[Infinity, -Infinity, NaN, {\"__float__\": \"Infinity\"}, "
      "{\"__float__\": \"-Infinity\"}, \"Infinity\"]",
      "t");
  const auto& a = json.as_array("t");
  const double inf = std::numeric_limits<double>::infinity();
  CHECK(a[0].as_double("t") == inf);
  CHECK(a[1].as_double("t") == -inf);
  CHECK(std::isnan(a[2].as_double("t")));
  CHECK(a[3].as_double("t") == inf);
  CHECK(a[4].as_double("t") == -inf);
  CHECK(a[5].is_string());
  CHECK(json.dump() == "[Infinity, -Infinity, NaN, Infinity, -Infinity, \"Infinity\"]");
}

TEST_CASE("json: every error names file, line, byte, expected and got") {
  CHECK(refusal("") == "x.json: line 1, byte 0: expected a value, got the end of the file");
  CHECK(refusal("{\n\"a\" 1}") == "x.json: line 2, byte 6: expected ':', got '1'");
  CHECK(refusal("[1, 2") == "x.json: line 1, byte 5: expected ',' or ']', got the end of the file");
  CHECK(refusal("{a: 1}") == "x.json: line 1, byte 1: expected a key in double quotes, got 'a'");
  CHECK(refusal("[1] x") == "x.json: line 1, byte 4: expected the end of the file, got 'x'");
  CHECK(refusal("{\"a\": 1, \"a\": 2}") == "x.json: line 1, byte 9: the key \"a\" is there twice");
  CHECK(refusal("\"abc") == "x.json: line 1, byte 0: this string has no end");
  CHECK(refusal("\"\xC0\x80\"") == "x.json: line 1, byte 1: a string that is not valid UTF-8");
  CHECK(refusal("\"\xED\xA0\x80\"").find("not valid UTF-8") != std::string::npos);
  CHECK(refusal("\"\\ud800x\"").find("surrogate") != std::string::npos);
  CHECK(refusal("\"\\udc00\"").find("surrogate") != std::string::npos);
  CHECK(refusal("\"\\x\"").find("after the backslash, got 'x'") != std::string::npos);
  CHECK(refusal("\"\t\"").find("expected an escape for a control character, got byte 0x09") !=
        std::string::npos);
  for (const char* bad : {"01", "1.", ".5", "+1", "1e", "-", "--1", "tru", "Inf", "nan", "[,]",
                          "[1,]", "{\"a\":1,}", "1e999", "'a'", "\x01"}) {
    CAPTURE(bad);
    CHECK(refusal(bad).starts_with("x.json: line 1, byte "));
  }
}

TEST_CASE("json: nesting is refused at 256 while parsing") {
  CHECK(refusal(nested(256, '[', ']')).empty());
  CHECK(refusal(nested(257, '[', ']')) ==
        "x.json: line 1, byte 256: nested deeper than 256 levels");
  CHECK(refusal(nested(100'000, '[', ']')).find("deeper than 256") != std::string::npos);
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  CHECK(refusal(objects).find("deeper than 256") != std::string::npos);
}

TEST_CASE("json: accessors say where, expected and got") {
  const Json json = parse_json("{\"n\": \"four\", \"x\": 1.5}", "c.json");
  CHECK(error_text([&] { json.at("n", "c.json").as_int("c.json: n"); }) ==
        "c.json: n must be an integer, got the string \"four\"");
  CHECK(error_text([&] { json.at("x", "c.json").as_int("c.json: x"); }) ==
        "c.json: x must be an integer, got 1.5");
  CHECK(error_text([&] { json.at("m", "c.json"); }) == "c.json has no key \"m\"");
  CHECK(error_text([&] { json.as_array("c.json"); }) ==
        "c.json must be an array, got an object with 2 keys");
  CHECK(!error_text([&] { Json(1e300).as_int("t"); }).empty());
  CHECK(!error_text([&] { Json(std::nan("")).as_int("t"); }).empty());
}

TEST_CASE("json: writing keeps key order and doubles") {
  Json json = Json::object();
  json.set("z", 1).set("a", 0.1).set("m", Json::array().push(true).push(Json()).push("q\"\x01"));
  json.set("z", 2);
  CHECK(json.dump() == "{\"z\": 2, \"a\": 0.1, \"m\": [true, null, \"q\\\"\\u0001\"]}");
  CHECK(Json::object().set("k", Json::array().push(1)).dump(2) == "{\n  \"k\": [\n    1\n  ]\n}");
  CHECK(parse_json(json.dump(2), "t") == json);
  for (const double value : {0.1, 1.0 / 3, 5e-324, 1.7976931348623157e308, -0.0, 1e22, 3.0}) {
    const Json back = parse_json(Json(value).dump(), "t");
    CHECK(back.kind() == Json::Kind::real);
    CHECK(back.as_double("t") == value);
    CHECK(std::signbit(back.as_double("t")) == std::signbit(value));
  }
}
