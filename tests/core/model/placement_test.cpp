#include "core/model/placement.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "core/model/pattern.h"

using namespace strata;

TEST_CASE("placement: even gives Megatron's known answers") {
  CHECK(even(56, 0.08, 0.5) == "M-M-M--M-M*-M-M-M-M--M*-M-M-M-M-M*--M-M-M-M-M*-M--M-M-M-");
  std::string sixth;
  for (int i = 0; i < 6; ++i) sixth += "MMMMMM*";
  CHECK(even(48, 0.125, 0) == sixth + "MMMMMM");
  CHECK(even(4, 0.25, 0) == "MM*M");  // the gap of 1.5 leaves exactly 0.5 before the second block
  CHECK(even(1, 0, 0) == "M");
  CHECK(even(4, 0, 1) == "----");
}

TEST_CASE("placement: even rounds halves to even, as Python does") {
  auto count = [](const std::string& s, char c) { return std::count(s.begin(), s.end(), c); };
  CHECK(count(even(10, 0.25, 0), '*') == 2);    // 2.5
  CHECK(count(even(10, 0.35, 0), '*') == 4);    // 3.5
  CHECK(count(even(10, 0, 0.45), '-') == 4);    // 4.5
  CHECK(count(even(6, 0.25, 0.25), '*') == 2);  // 1.5
}

TEST_CASE("placement: even refuses what has no meaning") {
  CHECK_THROWS_AS(even(0, 0, 0), Error);
  CHECK_THROWS_AS(even(4097, 0, 0), Error);
  CHECK_THROWS_AS(even(8, -0.1, 0), Error);
  CHECK_THROWS_AS(even(8, 0.6, 0.5), Error);
  CHECK_THROWS_AS(even(8, std::nan(""), 0), Error);
}

TEST_CASE("placement: blocks at places") {
  // Mamba-2's 2.7B hybrid: 58 M and 6 * of 64.
  const std::string stack = place("M^64", {{"*", {9, 18, 27, 36, 45, 56}}});
  const Expansion e = expand_pattern(stack);
  CHECK(e.blocks.size() == 64);
  CHECK(symbol_summary(e) == "58 M, 6 *");
  CHECK(e.blocks[56].symbol == "*");
  CHECK(place("M-|M-", {{"*{rope=false}", {2}}, {"<mine>", {0}}}) == "<mine>-|*{rope=false}-");
  CHECK(place("M^8", {{"*", period(8, 4, 1)}, {"-", interval(8, 4)}}) == "M*M-M*M-");
}

TEST_CASE("placement: places that cannot be are refused with their number") {
  auto refusal = [](const std::string& base, const Placements& p) -> std::string {
    try {
      place(base, p);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  CHECK(
      refusal("M^4", {{"*", {4}}}).find("at 4 lies outside of the base, whose places are 0 to 3") !=
      std::string::npos);
  CHECK(refusal("M^4", {{"*", {-1}}}).find("-1") != std::string::npos);
  CHECK(refusal("M^4", {{"*", {1}}, {"-", {1}}}).find("1 is given to '*' and to '-'") !=
        std::string::npos);
  CHECK(refusal("M^4", {{"M-", {1}}}).find("one block, it has 2") != std::string::npos);
  CHECK(refusal("(M-)@A", {{"*", {1}}}).find("shared group 'A'") != std::string::npos);
  CHECK(refusal("M@A-M@A", {{"*@A", {0}}}).find("the same weights") != std::string::npos);
  CHECK(refusal("M(", {}).find("never closed") != std::string::npos);
}

TEST_CASE("placement: rules as text") {
  CHECK(places_of("period(8, 4)", 32) == std::vector<int64_t>{4, 12, 20, 28});
  CHECK(places_of(" interval( 4 ) ", 12) == std::vector<int64_t>{3, 7, 11});
  CHECK(period(8, 3, 2) == std::vector<int64_t>{2, 5});
  CHECK(is_generator("even(56, 0.08, 0.5)"));
  CHECK(!is_generator("(M-)^4"));
  CHECK(!is_generator("M-M*-"));
  CHECK(generate_pattern("even(48, 0.125, 0)") == even(48, 0.125, 0));
  for (const char* bad : {"period(8)", "period(8, 8)", "period(0, 0)", "period(8, -1)",
                          "interval(0)", "interval(1.5)", "interval()", "interval(4", "every(4)",
                          "interval(4,)", "interval(x)", "interval(1e300)", ""}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(places_of(bad, 32), Error);
  }
  for (const char* bad : {"even(56)", "even(5.5, 0, 0)", "odd(1, 2, 3)", "even(1e30,0,0)"}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(generate_pattern(bad), Error);
  }
}
