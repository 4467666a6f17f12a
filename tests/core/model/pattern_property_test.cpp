// Random stacks, each written in several ways: all spellings are one stack, and the canonical form
// says all of it.
#include <doctest/doctest.h>

#include <set>

#include "core/model/pattern.h"
#include "core/tensor/random.h"

using namespace strata;

namespace {

struct Node {
  enum class Kind { layer, group, parallel, shared };
  Kind kind = Kind::layer;
  std::string symbol;                       // of a layer; of Kind::shared the text with its share
  std::vector<std::vector<Node>> children;  // one list, or one per branch
  std::vector<std::string> options;         // "d_state=64"
  std::string fuse;
  int repeat = 1;
};

class Generator {
 public:
  explicit Generator(uint64_t seed) : random_(seed, stream_of("pattern")) {}

  std::vector<Node> stack() {
    std::vector<Node> nodes = list(0, Place::stream, 4);
    nodes.push_back(layer());  // to=next needs a block behind it
    nodes.back().options.clear();
    return nodes;
  }

  // Writes the same stack in one of many ways.
  std::string write(const std::vector<Node>& nodes, bool cuts) {
    std::string out;
    for (const Node& node : nodes) {
      if (cuts && below(4) == 0) out += '|';
      out += write(node);
    }
    return out;
  }

 private:
  enum class Place { stream, chain, branch };

  uint64_t below(uint64_t n) { return random_.below(n); }

  std::string space() { return below(8) == 0 ? (below(2) ? " " : "\n\t") : ""; }

  Node layer() {
    static const char* const symbols[] = {"M", "m", "*", "-", "E", "G", "+", "mamba2", "my-layer"};
    Node node;
    node.symbol = symbols[below(9)];
    node.options = options();
    return node;
  }

  std::vector<std::string> options() {
    static const std::vector<std::vector<std::string>> all = {{"d_state=64", "d_state=128"},
                                                              {"rope=false", "rope=true"},
                                                              {"act=silu", "act=\"two words\""},
                                                              {"dt_min=0.001", "dt_min=1e-30"},
                                                              {"in_scale=0.5"},
                                                              {"out_scale=2"},
                                                              {"lora=8"}};
    std::vector<std::string> out;
    for (const auto& values : all) {
      if (below(5) == 0) out.push_back(values[below(values.size())]);
    }
    return out;
  }

  std::vector<Node> list(int depth, Place place, uint64_t longest) {
    std::vector<Node> nodes;
    for (uint64_t n = 1 + below(longest); n > 0; --n) nodes.push_back(node(depth, place));
    return nodes;
  }

  Node node(int depth, Place place) {
    // What an id holds never changes; A and B turn with A and B only.
    static const char* const shared[] = {"(M-{d_ff=8})@{A,B}", "*@C", "[M&*-:mean]@{pair}",
                                         "(m[c&w])@{A1,A2,A3}"};
    Node node = layer();
    const uint64_t kind = depth > 3 ? 0 : below(8);
    if (kind >= 4) {
      node.kind = kind == 4   ? Node::Kind::parallel
                  : kind == 5 ? Node::Kind::shared
                              : Node::Kind::group;
    }
    if (node.kind == Node::Kind::shared) {
      node.symbol = shared[below(4)];
      node.options.clear();
      // Options of a group around would change what an id holds, so shares stand outside of groups.
      if (depth > 0) return layer();
    } else if (node.kind == Node::Kind::group) {
      const bool chain = place == Place::stream && below(3) == 0;
      if (chain) {
        node.options = {"residual=none"};
        if (below(2)) node.options.push_back("in=h+embed");
        if (below(2)) node.options.push_back("to=next");
        if (below(2)) node.options.push_back("out=linear");
        if (below(2)) node.options.push_back("norm=layernorm");
      }
      node.children.push_back(list(depth + 1, chain ? Place::chain : place, 3));
    } else if (node.kind == Node::Kind::parallel) {
      for (uint64_t n = 2 + below(2); n > 0; --n)
        node.children.push_back(list(depth + 1, Place::branch, 2));
      node.fuse = below(2) ? "sum" : "concat";
    }
    if (below(3) == 0) node.repeat = 1 + static_cast<int>(below(3));
    return node;
  }

  std::string braces(std::vector<std::string> options) {
    for (size_t i = options.size(); i > 1; --i) std::swap(options[i - 1], options[below(i)]);
    std::string out;
    bool open = false;
    for (const std::string& option : options) {
      if (open && below(4) == 0) {
        out += "}";
        open = false;
      }
      out += open ? "," : "{";
      out += space() + option + space();
      open = true;
    }
    return open ? out + "}" : out;
  }

  std::string write(const Node& node) {
    const bool unroll = node.repeat > 1 && below(2) == 0;
    std::string out;
    for (int r = 0; r < (unroll ? node.repeat : 1); ++r)
      out += space() + once(node, !unroll && node.repeat > 1);
    if (!unroll && (node.repeat > 1 || below(10) == 0))
      out += space() + "^" + space() + std::to_string(node.repeat);
    else if (below(10) == 0)
      out = "(" + out + ")";
    return out;
  }

  std::string once(const Node& node, bool needs_brackets) {
    std::string out;
    switch (node.kind) {
      case Node::Kind::shared:
        return node.symbol;
      case Node::Kind::layer:
        out = node.symbol.size() == 1 && (below(4) || node.symbol < "A") ? node.symbol
                                                                         : "<" + node.symbol + ">";
        break;
      case Node::Kind::group:
        out = write(node.children[0], false);
        if (node.options.empty() && !needs_brackets && below(2)) {
          return "(" + out + ")";
        }
        out = "(" + out + ")";
        break;
      case Node::Kind::parallel:
        for (const auto& branch : node.children)
          out += (out.empty() ? "[" : "&") + write(branch, false);
        out += node.fuse == "sum" && below(2) ? "]" : ":" + node.fuse + "]";
        break;
    }
    return out + braces(node.options);
  }

  Random random_;
};

void check_same(const std::vector<BlockSpec>& a, const std::vector<BlockSpec>& b) {
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    REQUIRE(a[i].symbol == b[i].symbol);
    REQUIRE(a[i].fuse == b[i].fuse);
    REQUIRE(a[i].wiring == b[i].wiring);
    REQUIRE(a[i].share.has_value() == b[i].share.has_value());
    if (a[i].share) {
      REQUIRE(a[i].share->id == b[i].share->id);
      REQUIRE(a[i].share->member == b[i].share->member);
      REQUIRE(a[i].share->members == b[i].share->members);
      REQUIRE(a[i].share->call == b[i].share->call);
    }
    REQUIRE(a[i].options.size() == b[i].options.size());
    for (size_t k = 0; k < a[i].options.size(); ++k) {
      const PatternOption &x = a[i].options[k], &y = b[i].options[k];
      REQUIRE(x.key == y.key);
      REQUIRE(x.value == y.value);
      REQUIRE((x.reach == PatternOption::Reach::own) == (y.reach == PatternOption::Reach::own));
    }
    REQUIRE(a[i].branches.size() == b[i].branches.size());
    for (size_t k = 0; k < a[i].branches.size(); ++k)
      check_same(a[i].branches[k], b[i].branches[k]);
  }
}

}  // namespace

TEST_CASE("pattern property: every spelling of a stack has its canonical form and hash") {
  std::set<std::string> canonicals, hashes;
  size_t blocks = 0;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    Generator generator(seed);
    const std::vector<Node> stack = generator.stack();
    const std::string first = generator.write(stack, true);
    CAPTURE(first);
    const Expansion e = expand_pattern(first);
    const std::string canonical = canonical_pattern(e);
    CAPTURE(canonical);
    blocks += e.blocks.size();

    const Expansion again = expand_pattern(canonical);
    REQUIRE(canonical_pattern(again) == canonical);
    check_same(e.blocks, again.blocks);
    const Expansion with_cuts = expand_pattern(flat_pattern(e));
    REQUIRE(with_cuts.cuts == e.cuts);

    for (int k = 0; k < 4; ++k) {
      const std::string other = generator.write(stack, true);
      CAPTURE(other);
      const Expansion o = expand_pattern(other);
      REQUIRE(canonical_pattern(o) == canonical);
      REQUIRE(pattern_hash(o) == pattern_hash(e));
      check_same(e.blocks, o.blocks);
    }
    // Another stack has another name.
    REQUIRE(pattern_hash(expand_pattern(first + "Z")) != pattern_hash(e));
    canonicals.insert(canonical);
    hashes.insert(pattern_hash(e));
  }
  CHECK(canonicals.size() == hashes.size());
  CHECK(canonicals.size() > 350);
  CHECK(blocks > 2000);
}

TEST_CASE("pattern property: random bytes expand or are refused, never more") {
  Random random(3, stream_of("noise"));
  static const std::string alphabet = "M-*mE()[]{}<>@^|/&:=,?AB12 .\"'\\\n";
  int accepted = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string text;
    for (uint64_t n = random.below(24); n > 0; --n) text += alphabet[random.below(alphabet.size())];
    CAPTURE(text);
    try {
      const Expansion e = expand_pattern(text);
      const std::string canonical = canonical_pattern(e);
      REQUIRE(canonical_pattern(expand_pattern(canonical)) == canonical);
      ++accepted;
    } catch (const Error& error) {
      REQUIRE(std::string(error.what()).find("\n") != std::string::npos);
    }
  }
  CHECK(accepted > 20);
}
