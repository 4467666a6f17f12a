#include "core/io/toml.h"

#include <doctest/doctest.h>

using namespace strata;

namespace {

std::string refusal(const std::string& text) {
  try {
    parse_toml(text, "a.toml");
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

std::string repeat(const std::string& piece, int n) {
  std::string out;
  for (int i = 0; i < n; ++i) out += piece;
  return out;
}

}  // namespace

TEST_CASE("toml: every type arrives with its line") {
  const TomlTable t =
      parse_toml("a = true\nb = 3\nc = 0.5\nd = \"x\"\ne = [1, 2]\n[f.g]\nh = 1\n", "a.toml");
  CHECK(*t.at("a").get<bool>());
  CHECK(*t.at("b").get<int64_t>() == 3);
  CHECK(*t.at("c").get<double>() == 0.5);
  CHECK(*t.at("d").get<std::string>() == "x");
  CHECK(t.at("e").get<TomlList>()->size() == 2);
  CHECK(t.at("d").line == 4);
  const TomlValue& h = t.at("f").get<TomlTable>()->at("g").get<TomlTable>()->at("h");
  CHECK(h.line == 7);
}

TEST_CASE("toml: an invalid star section names the two ways to write it") {
  const std::string text = refusal("[model]\npattern = \"M\"\n[layers.*]\nwindow = 4\n");
  CHECK(text.starts_with("a.toml:3:"));
  CHECK(text.find("[layers.\"*\"]") != std::string::npos);
  CHECK(text.find("[layers.attention]") != std::string::npos);
}

TEST_CASE("toml: hostile input is refused with one sentence") {
  CHECK(refusal("a = \"\xff\xfe\"").starts_with("a.toml:1:"));
  CHECK(refusal("a = 1979-05-27").find("dates") != std::string::npos);
  CHECK(refusal("a = " + repeat("[", 100000)).find("nested deeper") != std::string::npos);
  CHECK(refusal("a = " + repeat("{b=", 100000)).find("nested deeper") != std::string::npos);
  CHECK(refusal("a" + repeat(".a", 100000) + " = 1").find("nested deeper") != std::string::npos);
  CHECK(refusal("[a" + repeat(" . \"a\"", 100000) + "]").find("nested deeper") !=
        std::string::npos);
  CHECK(refusal(repeat("#", 2 << 20)).find("1 MiB") != std::string::npos);
  CHECK(refusal("a = 1\na = 2").starts_with("a.toml:2:"));
  CHECK(refusal("a = \"" + repeat("[", 1000) + ".'\"  # " + repeat("[", 1000)) == "accepted");
  CHECK(refusal("a = [" + repeat("0.25, ", 1000) + "]") == "accepted");
}

TEST_CASE("toml: what is written reads back the same") {
  const std::string text =
      "[1, -2, 0.1, 1e300, inf, \"q\\\"\\\\\\n\\u007f\", { \"a b\" = [], c-d = { } }]";
  const TomlValue v = parse_toml_value(text, "v");
  CHECK(to_toml(parse_toml_value(to_toml(v), "v")) == to_toml(v));
  CHECK(to_toml(v).starts_with("[1, -2, 0.1, 1e+300, inf, "));
}
