// An expansion as text: canonical form, hash, names and counts.
#include <charconv>

#include "core/model/pattern_ast.h"
#include "core/tensor/random.h"

namespace strata {
namespace pattern {
namespace {

std::string number_text(double x) {
  char buffer[40];
  return std::string(buffer, std::to_chars(buffer, buffer + sizeof buffer, x).ptr);
}

std::string braces(const BlockSpec& b, bool with_wiring) {
  std::string out;
  auto add = [&](const std::string& entry) { out += (out.empty() ? "" : ",") + entry; };
  for (const PatternOption& o : b.options) {
    add(o.key + (o.reach == PatternOption::Reach::own ? "=" : "?=") + value_text(o.value));
  }
  const Wiring& w = b.wiring;
  if (with_wiring) {
    if (w.in != "h") add("in=" + value_text(w.in));
    if (!w.add) add("residual=none");
    if (w.out_linear) add("out=linear");
    if (w.to != Wiring::To::h) add(w.to == Wiring::To::next ? "to=next" : "to=chain");
    if (w.in_scale != 1) add("in_scale=" + number_text(w.in_scale));
    if (w.out_scale != 1) add("out_scale=" + number_text(w.out_scale));
    if (!w.norm.empty()) add("norm=" + value_text(w.norm));
    if (w.lora != 0) add("lora=" + std::to_string(w.lora));
  }
  return out.empty() ? out : "{" + out + "}";
}

const BlockSpec& first_layer(const BlockSpec& b) {
  return b.branches.empty() ? b : first_layer(b.branches[0][0]);
}

int layer_count(const BlockSpec& b) {
  int n = b.branches.empty();
  for (const auto& branch : b.branches) {
    for (const BlockSpec& inner : branch) n += layer_count(inner);
  }
  return n;
}

std::string id_text(const std::string& id) {
  return id.size() == 1 && is_letter(id[0]) ? "@" + id : "@{" + id + "}";
}

std::string one_block(const BlockSpec& b, Spelling spelling) {
  std::string out;
  if (b.branches.empty()) {
    out = b.symbol.size() == 1 ? b.symbol : "<" + b.symbol + ">";
  } else {
    for (const auto& branch : b.branches)
      out += (out.empty() ? "[" : "&") + blocks_text(branch, spelling);
    out += ":" + b.fuse + "]";
  }
  return out + braces(b, spelling.wiring);
}

// How many blocks from `begin` on are one shared item, 0 when the share (if any) lies deeper.
size_t shared_run(const std::vector<BlockSpec>& blocks, size_t begin) {
  const auto& share = first_layer(blocks[begin]).share;
  if (!share) return 0;
  int layers = 0;
  size_t end = begin;
  while (end < blocks.size() && layers < share->members) layers += layer_count(blocks[end++]);
  return layers == share->members ? end - begin : 0;
}

}  // namespace

std::string blocks_text(const std::vector<BlockSpec>& blocks, Spelling spelling,
                        const std::vector<int>* cuts) {
  std::string out;
  size_t cut = 0;
  auto mark_cuts = [&](size_t i) {
    for (; cuts && cut < cuts->size() && static_cast<size_t>((*cuts)[cut]) <= i; ++cut) out += '|';
  };
  for (size_t i = 0; i < blocks.size();) {
    mark_cuts(i);
    const size_t run = spelling.shares ? shared_run(blocks, i) : 0;
    if (run == 0) {
      out += one_block(blocks[i++], spelling);
      continue;
    }
    const std::string id = id_text(first_layer(blocks[i]).share->id);
    std::string inner;
    for (size_t k = 0; k < run; ++k) inner += one_block(blocks[i++], {spelling.wiring, false});
    out += run == 1 ? inner + id : "(" + inner + ")" + id;
  }
  mark_cuts(blocks.size());
  return out;
}

}  // namespace pattern

namespace {

std::string text_of(const Expansion& e, bool cuts) {
  std::string out = pattern::blocks_text(e.blocks, {}, cuts ? &e.cuts : nullptr);
  for (const auto& depth : e.mtp) out += "/" + pattern::blocks_text(depth);
  return out;
}

template <typename B, typename V>
void visit_layers(std::vector<B>& blocks, const V& visit) {
  for (auto& b : blocks) {
    if (b.branches.empty()) visit(b);
    for (auto& branch : b.branches) visit_layers(branch, visit);
  }
}

template <typename V>
void visit_layers(const std::vector<BlockSpec>& blocks, const V& visit) {
  for (const BlockSpec& b : blocks) {
    if (b.branches.empty()) visit(b);
    for (const auto& branch : b.branches) visit_layers(branch, visit);
  }
}

}  // namespace

std::string canonical_pattern(const Expansion& e) { return text_of(e, false); }

std::string flat_pattern(const Expansion& e) { return text_of(e, true); }

std::string pattern_hash(const Expansion& e) {
  const uint64_t hash = stream_of(canonical_pattern(e));
  std::string hex(16, '0');
  for (int i = 0; i < 16; ++i) hex[i] = "0123456789abcdef"[hash >> (60 - 4 * i) & 15];
  return hex;
}

void for_each_layer(Expansion& e, const std::function<void(BlockSpec&)>& visit) {
  visit_layers(e.blocks, visit);
  for (auto& depth : e.mtp) visit_layers(depth, visit);
}

void for_each_layer(const Expansion& e, const std::function<void(const BlockSpec&)>& visit) {
  visit_layers(e.blocks, visit);
  for (const auto& depth : e.mtp) visit_layers(depth, visit);
}

std::vector<std::pair<std::string, int>> symbol_counts(const Expansion& e) {
  std::vector<std::pair<std::string, int>> counts;
  visit_layers(e.blocks, [&](const BlockSpec& b) {
    for (auto& [symbol, n] : counts) {
      if (symbol == b.symbol) {
        ++n;
        return;
      }
    }
    counts.emplace_back(b.symbol, 1);
  });
  return counts;
}

std::string symbol_summary(const Expansion& e) {
  std::string out;
  for (const auto& [symbol, n] : symbol_counts(e)) {
    out += (out.empty() ? "" : ", ") + std::to_string(n) + " " +
           (symbol.size() == 1 ? symbol : "<" + symbol + ">");
  }
  return out;
}

std::string block_text(const BlockSpec& b) { return pattern::blocks_text({b}); }

std::string block_name(const Expansion& e, size_t index) {
  BlockSpec bare = e.blocks.at(index);
  return "block " + std::to_string(index) + " '" +
         (bare.branches.empty() ? bare.symbol : block_text(bare)) + "'";
}

}  // namespace strata
