#include "core/model/pattern.h"

#include <doctest/doctest.h>

#include <map>

using namespace strata;

namespace {

std::string flat(const std::string& text) { return canonical_pattern(expand_pattern(text)); }

std::map<std::string, int> counts(const std::string& text) {
  const auto list = symbol_counts(expand_pattern(text));
  return {list.begin(), list.end()};
}

}  // namespace

TEST_CASE("pattern: published strings from their short forms") {
  // Nemotron-H-4B and 8B, 56B, Nano-9B-v2, Nano-12B-v2, Nemotron-3-Nano-30B-A3B.
  struct Known {
    std::string short_form, published;
  };
  const Known known[] = {
      {"(M-)^3M*-((M-)^4M*-)^3(M-)^5", "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-"},
      {"(M-)^3M*-((M-)^4M*-)^9(M-)^5",
       "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-"
       "M-M-M*-M-M-M-M-M*-M-M-M-M-M-"},
      {"(M-)^3M(M-)^3M*-(M-)^2M*-((M-)^3M*-)^2M-M(M-)^6",
       "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-"},
      {"((M-)^3M*-)^6(M-)^4", "M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M-"},
      {"(ME)^2M*E((ME)^2M*E)^4(ME)^3M*E(ME)^4",
       "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME"},
      {"(m-mEm-mE*-mEm-mE)^4", "m-mEm-mE*-mEm-mEm-mEm-mE*-mEm-mEm-mEm-mE*-mEm-mEm-mEm-mE*-mEm-mE"},
      {"c^2*(c^2*)^2(c*)^3c", "cc*cc*cc*c*c*c*c"},  // LFM2-1.2B: attention at 2, 5, 8, 10, 12, 14
  };
  for (const Known& k : known) {
    CHECK(flat(k.short_form) == k.published);
    CHECK(pattern_hash(expand_pattern(k.short_form)) == pattern_hash(expand_pattern(k.published)));
  }
  using Counts = std::map<std::string, int>;
  CHECK(counts(known[0].published) == Counts{{"M", 24}, {"*", 4}, {"-", 24}});
  CHECK(counts(known[1].published) == Counts{{"M", 54}, {"*", 10}, {"-", 54}});
  CHECK(counts(known[2].published) == Counts{{"M", 27}, {"*", 4}, {"-", 25}});
  CHECK(counts(known[3].published) == Counts{{"M", 28}, {"*", 6}, {"-", 28}});
  CHECK(counts(known[4].published) == Counts{{"M", 23}, {"*", 6}, {"E", 23}});
  CHECK(counts(known[5].published) == Counts{{"m", 28}, {"*", 4}, {"-", 16}, {"E", 16}});
  CHECK(symbol_summary(expand_pattern(known[2].published)) == "27 M, 25 -, 4 *");
  const Expansion nano = expand_pattern(known[2].short_form);
  REQUIRE(nano.blocks.size() == 56);
  for (size_t i : {14, 21, 30, 39}) CHECK(nano.blocks[i].symbol == "*");
  // Nemotron-H-47B: 98 blocks, three MLPs in a row.
  const Expansion h47 = expand_pattern(
      "M-M-M-M-M-M-M-M-M*-M-M-M-M-M-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-M-M---MM---M-M*-M-M-"
      "M-M-M-");
  CHECK(h47.blocks.size() == 98);
  CHECK(counts("(GE)^3*E") == Counts{{"G", 3}, {"E", 4}, {"*", 1}});
  CHECK(expand_pattern("((GE)^3*E)^12").blocks.size() == 96);  // Qwen3-Next-80B: 48 HF layers
}

TEST_CASE("pattern: white space is ignored") {
  CHECK(flat(" ( M\t- ) ^ 2\n * { d = 1 , e = x } @ { A , B }") == "M-M-*{d=1,e=x}@A");
  CHECK(flat("[ M & * : sum ]") == "[M&*:sum]");
  CHECK(flat("< mamba2 >{in = h + embed}") == "<mamba2>{in=h+embed}");
}

TEST_CASE("pattern: options keep their TOML types") {
  const Expansion e = expand_pattern(
      "M{i=64,n=-3,h=0xff,u=1_000,f=0.5,g=1e3,inf=-inf,b=true,w=silu,s=\"a "
      "b\\n\\u00e9\",l='c:\\d'}");
  Options got;
  for (const PatternOption& o : e.blocks[0].options) got[o.key] = o.value;
  CHECK(got["i"] == OptionValue(int64_t{64}));
  CHECK(got["n"] == OptionValue(int64_t{-3}));
  CHECK(got["h"] == OptionValue(int64_t{255}));
  CHECK(got["u"] == OptionValue(int64_t{1000}));
  CHECK(got["f"] == OptionValue(0.5));
  CHECK(got["g"] == OptionValue(1000.0));
  CHECK(std::get<double>(got["inf"]) < 0);
  CHECK(got["b"] == OptionValue(true));
  CHECK(got["w"] == OptionValue(std::string("silu")));
  CHECK(got["s"] == OptionValue(std::string("a b\n\xc3\xa9")));
  CHECK(got["l"] == OptionValue(std::string("c:\\d")));
  CHECK(e.blocks[0].wiring == Wiring{});
  CHECK(flat(flat(e.text)) == flat(e.text));
  CHECK(flat("M{a=-2.5,b=-0.0,c=1e300,d=0.1,e=-7,f='1',g='true'}") ==
        "M{a=-2.5,b=0.0,c=1e+300,d=0.1,e=-7,f=\"1\",g=\"true\"}");
}

TEST_CASE("pattern: the inner option wins, a group's is marked") {
  const Expansion e = expand_pattern("((M{a=1}-){a=2,b=3}*){b=4,c=5}");
  CHECK(canonical_pattern(e) == "M{a=1,b?=3,c?=5}-{a?=2,b?=3,c?=5}*{b?=4,c?=5}");
  CHECK(e.blocks[0].options[0].reach == PatternOption::Reach::own);
  CHECK(e.blocks[0].options[1].reach == PatternOption::Reach::group);
  CHECK(e.text.substr(e.blocks[1].options[0].position, 3) == "a=2");
  CHECK(e.text[e.blocks[2].position] == '*');
}

TEST_CASE("pattern: parallel branches") {
  const Expansion e =
      expand_pattern("[M{in_scale=2}&*-&[w&c:mean]{out_scale=0.5}:concat]{to=next}-");
  REQUIRE(e.blocks.size() == 2);
  const BlockSpec& b = e.blocks[0];
  CHECK(b.symbol.empty());
  CHECK(b.fuse == "concat");
  REQUIRE(b.branches.size() == 3);
  CHECK(b.branches[0][0].wiring.in_scale == 2);
  CHECK(b.branches[1].size() == 2);
  CHECK(b.branches[2][0].fuse == "mean");
  CHECK(b.branches[2][0].wiring.out_scale == 0.5);
  CHECK(b.wiring.to == Wiring::To::next);
  CHECK(flat("[M&*]") == flat("[M&*:sum]"));
  CHECK(flat("[M&*]") != flat("[*&M]"));                         // branches have names of their own
  CHECK(expand_pattern("([M&*:sum]-)^44").blocks.size() == 88);  // Falcon-H1-7B
  CHECK(flat("[M&*]{lora=8,norm=layernorm}") == "[M{lora=8}&*{lora=8}:sum]{norm=layernorm}");
  // Hymba: global attention at 0, 16, 31.
  const Expansion hymba = expand_pattern("[M&*]-([M&w]-)^15[M&*]-([M&w]-)^14[M&*]-");
  CHECK(hymba.blocks.size() == 64);
  CHECK(hymba.blocks[32].branches[1][0].symbol == "*");
}

TEST_CASE("pattern: shares name layers, also within branches and around them") {
  const Expansion e = expand_pattern("(M-)@{A,B}^3*@C[M&w]@{emb}[(M-)@A&*{d=1}]");
  CHECK(canonical_pattern(e) == "(M-)@A(M-)@B(M-)@A*@C[M&w:sum]@{emb}[(M-)@A&*{d=1}:sum]");
  CHECK(flat(canonical_pattern(e)) == canonical_pattern(e));
  const BlockSpec& whole = e.blocks[7];
  CHECK(!whole.share);
  CHECK(whole.branches[1][0].share->id == "emb");
  CHECK(whole.branches[1][0].share->member == 1);
  CHECK(e.blocks[8].branches[0][1].share->call == 2);
  CHECK(flat("(M)@A") == flat("M@A"));
  CHECK(flat("([M&*])@A") == flat("[M&*]@A"));
}

TEST_CASE("pattern: a shared group in rotation, Zamba2-2.7B") {
  const std::string shared = "(*-){in=h+embed, residual=none, out=linear, to=next, lora=128}@{A,B}";
  const Expansion e =
      expand_pattern("M(M^5" + shared + "M)^7M^4" + shared + "MM^3" + shared + "MM^2");
  const auto n = symbol_counts(e);
  CHECK(n == std::vector<std::pair<std::string, int>>{{"M", 54}, {"*", 9}, {"-", 9}});
  std::vector<int> before;  // Mamba blocks before each call
  std::string ids;
  int mambas = 0;
  for (const BlockSpec& b : e.blocks) {
    mambas += b.symbol == "M";
    if (b.symbol == "*") {
      before.push_back(mambas);
      ids += b.share->id;
      CHECK(b.wiring.in == "h+embed");
      CHECK(b.wiring.to == Wiring::To::chain);
      CHECK(!b.wiring.out_linear);
      CHECK(b.wiring.lora == 128);
      CHECK(b.share->member == 0);
      CHECK(b.share->members == 2);
    }
    if (b.symbol == "-") {
      CHECK(b.wiring.in == "h");
      CHECK(b.wiring.to == Wiring::To::next);
      CHECK(b.wiring.out_linear);
      CHECK(b.wiring.lora == 128);
      CHECK(b.share->member == 1);
    }
    if (b.symbol == "M") CHECK(!b.share);
  }
  CHECK(before == std::vector<int>{6, 12, 18, 24, 30, 36, 42, 47, 51});
  CHECK(ids == "ABABABABA");
  CHECK(e.blocks.back().symbol == "M");
  const std::string canonical = canonical_pattern(e);
  CHECK(canonical.substr(0, 82) ==
        "MMMMMM(*{in=h+embed,to=chain,lora=128}-{out=linear,to=next,lora=128})@AMMMMMM(*{in");
  CHECK(flat(canonical) == canonical);
}

TEST_CASE("pattern: the j-th occurrence of a list takes entry j mod n") {
  auto ids = [](const std::string& text) {
    std::string out;
    for_each_layer(expand_pattern(text), [&](const BlockSpec& b) {
      out += b.share ? b.share->id + std::to_string(b.share->call) + " " : "- ";
    });
    return out;
  };
  CHECK(ids("M@{A,B}^5") == "A0 B0 A1 B1 A2 ");
  CHECK(ids("(M@{A,B}-)^3") == "A0 - B0 - A1 - ");
  CHECK(ids("M@{A,B}M@{B,A}M@{A,B}M@{B,A}") == "A0 B0 B1 A1 ");  // two lists, two counters
  CHECK(ids("M@AMM@A^2") == "A0 - A1 A2 ");
  CHECK(ids("M@{A}M@A") == "A0 A1 ");
  CHECK(ids("[M@A&*]M@A") == "A0 - A1 ");
  CHECK(ids("M@{A,B}/M@{A,B}") == "A0 B0 ");
}

TEST_CASE("pattern: cuts and depths") {
  const Expansion e = expand_pattern("M-M-|M-M*-/*E/*E");
  CHECK(e.blocks.size() == 9);
  CHECK(e.cuts == std::vector<int>{4});
  REQUIRE(e.mtp.size() == 2);
  CHECK(e.mtp[1][1].symbol == "E");
  CHECK(canonical_pattern(e) == "M-M-M-M*-/*E/*E");
  CHECK(flat_pattern(e) == e.text);
  CHECK(pattern_hash(e) == pattern_hash(expand_pattern("M-M-M-M*-/*E/*E")));
  CHECK(pattern_hash(e) != pattern_hash(expand_pattern("M-M-M-M*-/*E")));
  CHECK(flat_pattern(expand_pattern("|M||-|")) == "|M||-|");
  CHECK(expand_pattern("M-//").mtp.empty());
}

TEST_CASE("pattern: wiring") {
  SUBCASE("a key on a group goes to every block, and the inner one wins") {
    CHECK(flat("(M-{out_scale=2}){out_scale=0.5,norm=layernorm}") ==
          "M{out_scale=0.5,norm=layernorm}-{out_scale=2,norm=layernorm}");
  }
  SUBCASE("residual=none: the ends take what belongs to the ends") {
    CHECK(flat("(*M-){residual=none,in_scale=2,out_scale=3}") ==
          "*{residual=none,in_scale=2}M{residual=none}-{residual=none,out_scale=3}");
    CHECK(flat("(*M-){residual=none,to=next}E") == "*{to=chain}M{to=chain}-{to=next}E");
    CHECK(flat("*{residual=none,to=next}E") == "*{to=next}E");
    CHECK(flat("((*-){residual=none,to=next}M){out_scale=2}") ==
          "*{to=chain}-{to=next,out_scale=2}M{out_scale=2}");
  }
  SUBCASE("defaults are not spelled") {
    CHECK(flat("M{in=h,residual=add,out=none,to=h,in_scale=1,out_scale=1.0,lora=0}") == "M");
  }
  SUBCASE("two spellings of one chain") {
    CHECK(flat("(*-){in=h+embed,residual=none,out=linear,to=next}@AM") ==
          flat("(*{in=h+embed,to=chain}-{out=linear,to=next})@AM"));
  }
}

TEST_CASE("pattern: names of blocks") {
  const Expansion e = expand_pattern("M{d_state=64}<mamba2>[M&*]-{to=next}M");
  CHECK(block_name(e, 0) == "block 0 'M'");
  CHECK(block_name(e, 1) == "block 1 'mamba2'");
  CHECK(block_name(e, 2) == "block 2 '[M&*:sum]'");
  CHECK(block_text(e.blocks[3]) == "-{to=next}");
  CHECK(flat("<M>") == "M");
}

TEST_CASE("pattern: the hash is what it was") {
  // Run records hold it: a change here is a change of every variant's name.
  CHECK(pattern_hash(expand_pattern("M-M*-")) == "118108d52241ac6b");
}

TEST_CASE("pattern: help shows the grammar") {
  CHECK(pattern_help().find("(M-)^4") != std::string::npos);
  CHECK(pattern_help().find("to=next") != std::string::npos);
}
