#include <doctest/doctest.h>

#include <map>

#include "core/model/pattern.h"

using namespace strata;

namespace {

std::optional<std::vector<KnownOption>> lookup(const BlockSpec& layer) {
  const std::string& symbol = layer.symbol;
  if (symbol == "M") return {{{"d_state", int64_t{128}}, {"dt_min", 0.001}, {"neg_eig", false}}};
  if (symbol == "-") return {{{"d_ff", int64_t{0}}, {"activation", std::string("relu2")}}};
  if (symbol == "i") return std::vector<KnownOption>{};
  return std::nullopt;
}

std::string resolved(const std::string& text) {
  Expansion e = expand_pattern(text);
  resolve_options(e, lookup);
  return canonical_pattern(e);
}

std::string refusal(const std::string& text) {
  try {
    resolved(text);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

void check(const std::string& text, size_t place, const std::string& part) {
  const std::string what = refusal(text);
  CAPTURE(what);
  CHECK(what.find(part) != std::string::npos);
  CHECK(what.size() - what.rfind('\n') == place + 4);
}

}  // namespace

TEST_CASE("pattern options: a group's go to the members that know them") {
  CHECK(resolved("(M-){d_state=64}") == "M{d_state=64}-");
  CHECK(resolved("((M-){d_state=64}^2)^2") ==
        "M{d_state=64}-M{d_state=64}-M{d_state=64}-M{d_state=64}-");
  CHECK(resolved("[M&-]{d_ff=8}") == "[M&-{d_ff=8}:sum]");
  CHECK(resolved("(M-){d_ff=8}@A") == "(M-{d_ff=8})@A");
  CHECK(resolved("M-/(M-){d_state=64}") == "M-/M{d_state=64}-");
  CHECK(resolved("-{d_state?=64}M{d_state?=64}") == "-M{d_state=64}");
}

TEST_CASE("pattern options: two spellings of one stack have one name after settling") {
  auto name = [](const std::string& text) {
    Expansion e = expand_pattern(text);
    resolve_options(e, lookup);
    return pattern_hash(e);
  };
  CHECK(name("((M-){d_state=64})^2") == name("(M-M-){d_state=64}"));
  CHECK(name("(M-){d_state=64}") == name("M{d_state=64}-"));
  CHECK(name("M{dt_min=1}") == name("M{dt_min=1.0}"));
  CHECK(name("M{d_state=64}-") != name("M-"));
}

TEST_CASE("pattern options: the canonical form stays resolvable before settling") {
  for (const char* text : {"((M-){d_state=64}i){d_ff=4}", "(M-){d_ff=3}@A-(M-){d_ff=3}@A"}) {
    const std::string canonical = canonical_pattern(expand_pattern(text));
    CHECK(canonical_pattern(expand_pattern(canonical)) == canonical);
    CHECK(resolved(canonical) == resolved(text));
  }
}

TEST_CASE("pattern options: what nobody knows is refused at its place") {
  check("M-Q", 2, "no layer is bound to 'Q'");
  check("M-<mamba9>", 2, "no layer is bound to 'mamba9'");
  check("M{d_stat=64}", 2, "'d_stat' is not an option of 'M'; did you mean 'd_state'?");
  check("i{a=1}", 2, "it has no options");
  check("M{frobnicate=1}", 2, "its options are d_state, dt_min, neg_eig");
  check("(M-){d_stat=64}", 5, "not an option of any layer in this group; did you mean 'd_state'?");
  check("(M-){d_state=1}(-i){d_state=2}", 20, "not an option of any layer in this group");
  check("-M{d_state=0.5}", 3, "type integer, got the float 0.5");
  check("M{neg_eig=1}", 2, "boolean");
  check("-{activation=3}", 2, "string");
}
