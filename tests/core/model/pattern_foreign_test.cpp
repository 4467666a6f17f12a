#include "core/model/pattern_foreign.h"

#include <doctest/doctest.h>

using namespace strata;

namespace {

const char* const kNano9b = "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-";

template <typename F>
std::string refusal(F f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

void check_part(const std::string& what, const std::string& part) {
  CAPTURE(what);
  CHECK(what.find(part) != std::string::npos);
}

}  // namespace

TEST_CASE("foreign patterns: Megatron") {
  CHECK(from_megatron("M-M-|M-M*-/*E/*E") == "M-M-|M-M*-/*E/*E");
  CHECK(from_megatron("MG E-") == "MGE-");
  CHECK(from_megatron("M|D+-||E") == "M|D+-||E");
  CHECK(from_megatron("M-/") == "M-");
  CHECK(to_megatron(expand_pattern("(M-)^2|M*")) == "M-M-|M*");
  check_part(refusal([] { from_megatron("M-c"); }),
             "has no such symbol; it has M G * D + - E\n  M-c\n    ^");
  check_part(refusal([] { from_megatron("(M)"); }), "no such symbol");
  check_part(refusal([] { from_megatron("M*D"); }), "does not mix");
  check_part(refusal([] { from_megatron("M/*/E"); }), "depth 1 is E, depth 0 is *");
}

TEST_CASE("foreign patterns: what a string of letters cannot say is refused by block") {
  auto no = [](const char* text) { return refusal([&] { to_megatron(expand_pattern(text)); }); };
  check_part(no("M[M&*]"), "block 1 '[M&*:sum]': a Megatron pattern cannot say parallel branches");
  check_part(no("M-M@A"),
             "block 2 'M': a Megatron pattern cannot say that weights are shared (@A)");
  check_part(no("M-{d_ff=8}"),
             "block 1 '-': a Megatron pattern cannot say options of single blocks (-{d_ff=8})");
  check_part(no("M{to=next}-"), "block 0 'M': a Megatron pattern cannot say wiring (M{to=next})");
  check_part(no("Mc"), "block 1 'c': a Megatron pattern cannot say this layer");
  check_part(no("M<mine>"), "block 1 'mine'");
  check_part(no("M/c"), "depth 0, block 0 'c'");
  auto hf = [](const char* text) {
    return refusal([&] { to_hybrid_override(expand_pattern(text)); });
  };
  check_part(hf("MG"),
             "block 1 'G': hybrid_override_pattern cannot say this layer; its symbols are M * - E");
  check_part(hf("M/E"), "depths");
}

TEST_CASE("foreign patterns: hybrid_override_pattern") {
  CHECK(from_hybrid_override(kNano9b) == kNano9b);
  CHECK(to_hybrid_override(expand_pattern("(ME)^2|M*E")) == "MEMEM*E");
  check_part(refusal([] { from_hybrid_override("M|M"); }), "no such symbol");
  check_part(refusal([] { from_hybrid_override(""); }), "no blocks");
}

TEST_CASE("foreign patterns: layer types of nemotron_h in both spellings") {
  const LayerKinds classic = nemotron_h_kinds(LayerWords::classic),
                   current = nemotron_h_kinds(LayerWords::current);
  using Types = std::vector<std::string>;
  const Types old_words = {"mamba", "mlp", "attention", "moe"},
              new_words = {"linear_attention", "mlp", "full_attention", "moe"};
  for (const LayerKinds& kinds : {classic, current}) {
    CHECK(from_layer_types(old_words, kinds) == "M-*E");
    CHECK(from_layer_types(new_words, kinds) == "M-*E");
  }
  CHECK(to_layer_types(expand_pattern("M-|*E"), classic) == old_words);
  CHECK(to_layer_types(expand_pattern("M-*E"), current) == new_words);
  check_part(refusal([&] {
               from_layer_types({"mamba", "hybrid"}, classic);
             }),
             "layer 1 is of the kind 'hybrid'; the kinds of this family are mamba = M");
  auto no = [&](const char* text) {
    return refusal([&] { to_layer_types(expand_pattern(text), current); });
  };
  check_part(no("M-G"), "block 2 'G': no kind of layer of the target begins here");
  check_part(no("M-[M&*]"), "block 2 '[M&*:sum]': no kind");
  check_part(no("M-{d_ff=8}"),
             "block 1 '-' is -{d_ff=8}, but the target's list of layer types can only say - here");
  check_part(no("M-M@A"), "block 2 'M' is M@A");
  check_part(no("M-*{to=next}-"), "block 2 '*' is *{to=next}");
  check_part(no("M/E"), "depths");
}

TEST_CASE("foreign patterns: families whose layer is mixer and feed-forward") {
  const LayerKinds granite = {{"mamba", "ME"}, {"attention", "*E"}};
  std::vector<std::string> types(40, "mamba");
  for (size_t i : {5, 15, 25, 35}) types[i] = "attention";
  const std::string pattern = from_layer_types(types, granite);
  CHECK(pattern_hash(expand_pattern(pattern)) ==
        pattern_hash(expand_pattern("(ME)^5*E((ME)^9*E)^3(ME)^4")));
  CHECK(to_layer_types(expand_pattern(pattern), granite) == types);
  check_part(refusal([&] { to_layer_types(expand_pattern("MEM*E"), granite); }), "block 2 'M'");
  check_part(refusal([&] { to_layer_types(expand_pattern("MEM"), granite); }), "block 2 'M'");
  // A kind that begins like another is told apart by what follows.
  const LayerKinds nested = {{"plain", "M"}, {"pair", "M*"}, {"tail", "*-"}};
  CHECK(to_layer_types(expand_pattern("M*-M*M"), nested) ==
        std::vector<std::string>{"plain", "tail", "pair", "plain"});
}

TEST_CASE("foreign patterns: Zamba2's list, with shares in rotation") {
  const LayerKinds kinds = {
      {"mamba", "M"},
      {"hybrid", "(*-){in=h+embed,residual=none,out=linear,to=next,lora=128}@{A,B}M"}};
  std::vector<std::string> types(54, "mamba");
  for (size_t i : {6, 12, 18, 24, 30, 36, 42, 47, 51}) types[i] = "hybrid";
  const Expansion e = expand_pattern(from_layer_types(types, kinds));
  CHECK(symbol_summary(e) == "54 M, 9 *, 9 -");
  CHECK(to_layer_types(e, kinds) == types);
  const std::string canonical = canonical_pattern(e);
  const Expansion one_block = expand_pattern(
      "M(*-){in=h+embed,residual=none,out=linear,to=next,lora=128}@A M"
      "(*-){in=h+embed,residual=none,out=linear,to=next,lora=128}@A M");
  check_part(refusal([&] { to_layer_types(one_block, kinds); }), "block 4 '*'");
}

TEST_CASE("foreign patterns: Jamba's periods") {
  const LayerPeriods jamba{32, 8, 4, 2, 1, true};
  const std::string pattern = from_periods(jamba);
  CHECK(pattern_hash(expand_pattern(pattern)) ==
        pattern_hash(expand_pattern("(m-mEm-mE*-mEm-mE)^4")));
  CHECK(to_periods(expand_pattern(pattern)) == jamba);
  CHECK(to_periods(expand_pattern("(M-)^3*-M-"), "M") == LayerPeriods{5, 4, 3, 2, 1, false});
  CHECK(from_periods(to_periods(expand_pattern("(m-)^4"))) == "m-m-m-m-");
  for (int64_t n : {1, 2, 5, 9}) {
    for (int64_t p : {1, 2, 3}) {
      for (int64_t o = 0; o < p; ++o) {
        const std::string text = from_periods({n, p, o, p, p - 1 - o, true});
        CHECK(from_periods(to_periods(expand_pattern(text))) == text);
      }
    }
  }
  check_part(refusal([] { to_periods(expand_pattern("m-*-m-*-*-")); }),
             "block 8 '*': period and offset cannot say");
  check_part(refusal([] { to_periods(expand_pattern("m-m")); }), "block 2 'm'");
  check_part(refusal([] { to_periods(expand_pattern("M-")); }), "block 0 'M'");
  CHECK_THROWS_AS(from_periods({0, 8, 4, 2, 1, true}), Error);
  CHECK_THROWS_AS(from_periods({8, 8, 8, 2, 1, true}), Error);
  CHECK_THROWS_AS(from_periods({8, 8, 4, 0, 0, true}), Error);
  CHECK_THROWS_AS(from_periods({int64_t{1} << 40, 8, 4, 2, 1, true}), Error);
}

TEST_CASE("foreign patterns: index lists") {
  const LayerIndices bamba{32, {9, 18, 27}};
  const std::string pattern = from_indices(bamba, "M-", "*-");
  CHECK(pattern_hash(expand_pattern(pattern)) ==
        pattern_hash(expand_pattern("(M-)^9*-((M-)^8*-)^2(M-)^4")));
  CHECK(to_indices(expand_pattern(pattern), "M-", "*-") == bamba);
  CHECK(from_indices({16, {2, 5, 8, 10, 12, 14}}, "c", "*") == "cc*cc*cc*c*c*c*c");
  CHECK_THROWS_AS(from_indices({4, {4}}, "M", "*"), Error);
  CHECK_THROWS_AS(from_indices({4, {-1}}, "M", "*"), Error);
  CHECK_THROWS_AS(from_indices({4, {1, 1}}, "M", "*"), Error);
  check_part(refusal([] { to_indices(expand_pattern("M-*E"), "M-", "*-"); }), "block 2 '*'");
}

TEST_CASE("foreign patterns: a stated layer count must be the pattern's") {
  CHECK_NOTHROW(check_layer_count(kNano9b, 56));
  CHECK_NOTHROW(check_layer_count("(M-)^4", 8));
  // The misprints have 22 M, 4 *, 20 - and 25 M, 4 *, 23 -.
  const std::string misprint46 = "(M-)^5*(M-)^5*(M-)^5*(M-)^5*M^2";
  const std::string what = refusal([&] { check_layer_count(misprint46, 56, "config.json"); });
  check_part(what,
             "config.json: the number of layers is stated as 56, but the pattern has 46 blocks "
             "(22 M, 20 -, 4 *)");
  check_part(what, "Nemotron-Nano-9B-v2 has 56");
  check_part(what, "46 or 52");
  const std::string plain = refusal([] { check_layer_count("M*M", 4); });
  check_part(plain, "stated as 4, but the pattern has 3 blocks (2 M, 1 *)");
  CHECK(plain.find("Nano") == std::string::npos);
  CHECK_THROWS_AS(check_layer_count("M", -1), Error);
}
