// Spellings with one word, period or index per foreign layer.
#include <algorithm>

#include "core/model/pattern_foreign.h"

namespace strata {
namespace {

// What a block is, without options, wiring and shares.
std::string skeleton(const BlockSpec& b) {
  if (b.branches.empty()) return "<" + b.symbol + ">";
  std::string out;
  for (const auto& branch : b.branches) {
    out += out.empty() ? "[" : "&";
    for (const BlockSpec& inner : branch) out += skeleton(inner);
  }
  return out + ":" + b.fuse + "]";
}

// What a block is, with all of it.
std::string full_text(const BlockSpec& b) {
  Expansion one;
  one.blocks = {b};
  std::string out = block_text(b);
  for_each_layer(one, [&](const BlockSpec& layer) {
    if (layer.share && out.find('@') == out.npos) {
      out += "@" + layer.share->id +
             (layer.share->members > 1 ? " (" + std::to_string(layer.share->member) + ")" : "");
    }
  });
  return out;
}

std::string kinds_text(const LayerKinds& kinds) {
  std::string out;
  for (const auto& [kind, pattern] : kinds)
    out += (out.empty() ? "" : ", ") + kind + " = " + pattern;
  return out;
}

// The blocks of each kind, as skeletons.
std::vector<std::vector<std::string>> shapes_of(const LayerKinds& kinds) {
  std::vector<std::vector<std::string>> shapes;
  for (const auto& [kind, pattern] : kinds) {
    // A wiring `to=next` may point at the next layer, so a block is put behind.
    Expansion e = expand_pattern(pattern + "M");
    e.blocks.pop_back();
    if (e.blocks.empty() || !e.mtp.empty())
      throw Error("layer kind '" + kind + "': its pattern must have blocks and no depths");
    shapes.emplace_back();
    for (const BlockSpec& b : e.blocks) shapes.back().push_back(skeleton(b));
  }
  return shapes;
}

// The smallest period p and its offset o with on[i] == (i % p == o); false when there is none.
bool fit_period(const std::vector<bool>& on, int64_t& p, int64_t& o) {
  const int64_t n = static_cast<int64_t>(on.size());
  const int64_t first = std::find(on.begin(), on.end(), true) - on.begin();
  o = first;
  for (p = first + 1; p <= n + 1; ++p) {
    int64_t i = 0;
    while (i < n && on[i] == (i % p == o)) ++i;
    if (i == n) return true;
  }
  return false;
}

}  // namespace

LayerKinds nemotron_h_kinds(LayerWords words) {
  LayerKinds kinds = {
      {"mamba", "M"}, {"attention", "*"}, {"linear_attention", "M"}, {"full_attention", "*"}};
  if (words == LayerWords::current) std::rotate(kinds.begin(), kinds.begin() + 2, kinds.end());
  kinds.insert(kinds.end(), {{"mlp", "-"}, {"moe", "E"}});
  return kinds;
}

std::string from_layer_types(const std::vector<std::string>& types, const LayerKinds& kinds) {
  std::string pattern;
  for (size_t i = 0; i < types.size(); ++i) {
    const auto kind = std::find_if(kinds.begin(), kinds.end(),
                                   [&](const auto& k) { return k.first == types[i]; });
    if (kind == kinds.end()) {
      throw Error("layer " + std::to_string(i) + " is of the kind '" + types[i] +
                  "'; the kinds of this family are " + kinds_text(kinds));
    }
    pattern += kind->second;
  }
  expand_pattern(pattern);
  return pattern;
}

std::vector<std::string> to_layer_types(const Expansion& e, const LayerKinds& kinds) {
  if (!e.mtp.empty())
    throw Error("a list of layer types cannot say multi-token-prediction depths ('/')");
  const auto shapes = shapes_of(kinds);
  const size_t n = e.blocks.size();
  std::vector<std::string> stack;
  for (const BlockSpec& b : e.blocks) stack.push_back(skeleton(b));
  auto fits = [&](size_t k, size_t i) {
    return i + shapes[k].size() <= n &&
           std::equal(shapes[k].begin(), shapes[k].end(), stack.begin() + i);
  };
  // covered[i]: whole layers can end before block i; rest[i]: whole layers can follow from it on.
  std::vector<bool> covered(n + 1), rest(n + 1);
  covered[0] = rest[n] = true;
  for (size_t i = 0; i < n; ++i) {
    for (size_t k = 0; covered[i] && k < kinds.size(); ++k) {
      if (fits(k, i)) covered[i + shapes[k].size()] = true;
    }
  }
  for (size_t i = n; i-- > 0;) {
    for (size_t k = 0; k < kinds.size() && !rest[i]; ++k)
      rest[i] = fits(k, i) && rest[i + shapes[k].size()];
  }
  if (!rest[0]) {
    size_t furthest = n;
    while (furthest > 0 && !covered[furthest]) --furthest;
    if (furthest == n) --furthest;
    throw Error(block_name(e, furthest) +
                ": no kind of layer of the target begins here; they are " + kinds_text(kinds));
  }
  std::vector<std::string> types;
  for (size_t i = 0; i < n;) {
    size_t k = 0;
    while (!fits(k, i) || !rest[i + shapes[k].size()]) ++k;
    types.push_back(kinds[k].first);
    i += shapes[k].size();
  }
  // The words say the kinds; options, wiring and shares must be those that the kinds bring.
  const Expansion back = expand_pattern(from_layer_types(types, kinds));
  for (size_t i = 0; i < n; ++i) {
    const std::string ours = full_text(e.blocks[i]), theirs = full_text(back.blocks[i]);
    if (ours != theirs)
      throw Error(block_name(e, i) + " is " + ours +
                  ", but the target's list of layer types can only say " + theirs + " here");
  }
  return types;
}

std::string from_periods(const LayerPeriods& p, const std::string& mixer) {
  auto check = [](const char* name, int64_t period, int64_t offset) {
    if (period < 1 || offset < 0 || offset >= period) {
      throw Error(std::string(name) + "_layer_offset must be from 0 to " + name +
                  "_layer_period - 1, got offset " + std::to_string(offset) + " and period " +
                  std::to_string(period));
    }
  };
  check("attn", p.attn_period, p.attn_offset);
  check("expert", p.expert_period, p.expert_offset);
  if (p.n_layers < 1 || p.n_layers > static_cast<int64_t>(kMaxPatternBlocks / 2)) {
    throw Error("the number of layers must be from 1 to " + std::to_string(kMaxPatternBlocks / 2) +
                ", got " + std::to_string(p.n_layers));
  }
  std::string pattern;
  for (int64_t i = 0; i < p.n_layers; ++i) {
    pattern += i % p.attn_period == p.attn_offset ? "*" : mixer;
    pattern += p.experts && i % p.expert_period == p.expert_offset ? "E" : "-";
  }
  expand_pattern(pattern);
  return pattern;
}

LayerPeriods to_periods(const Expansion& e, const std::string& mixer) {
  const LayerKinds kinds = {{"m-", mixer + "-"}, {"mE", mixer + "E"}, {"a-", "*-"}, {"aE", "*E"}};
  const std::vector<std::string> types = to_layer_types(e, kinds);
  std::vector<bool> attention, experts;
  for (const std::string& t : types) {
    attention.push_back(t[0] == 'a');
    experts.push_back(t[1] == 'E');
  }
  LayerPeriods p;
  p.n_layers = static_cast<int64_t>(types.size());
  p.experts = std::find(experts.begin(), experts.end(), true) != experts.end();
  auto settle = [&](const std::vector<bool>& on, int64_t& period, int64_t& offset, size_t place) {
    if (fit_period(on, period, offset)) return;
    // The distance of the first two is the period that was meant, if any.
    const auto first = std::find(on.begin(), on.end(), true),
               second = std::find(first + 1, on.end(), true);
    const size_t o = first - on.begin(), distance = second - first;
    size_t i = 0;
    while (i + 1 < on.size() && on[i] == (i >= o && (i - o) % distance == 0)) ++i;
    throw Error(block_name(e, 2 * i + place) +
                ": period and offset cannot say this stack; from the start, the period would be " +
                std::to_string(distance) + " layers with offset " + std::to_string(o));
  };
  settle(attention, p.attn_period, p.attn_offset, 0);
  if (p.experts) settle(experts, p.expert_period, p.expert_offset, 1);
  return p;
}

std::string from_indices(const LayerIndices& list, const std::string& base, const std::string& at) {
  if (list.n_layers < 1 || list.n_layers > static_cast<int64_t>(kMaxPatternBlocks)) {
    throw Error("the number of layers must be from 1 to " + std::to_string(kMaxPatternBlocks) +
                ", got " + std::to_string(list.n_layers));
  }
  std::vector<std::string> types(list.n_layers, "base");
  for (int64_t i : list.indices) {
    if (i < 0 || i >= list.n_layers) {
      throw Error("the layer index " + std::to_string(i) + " lies outside of the " +
                  std::to_string(list.n_layers) + " layers, 0 to " +
                  std::to_string(list.n_layers - 1));
    }
    if (types[i] == "at") throw Error("the layer index " + std::to_string(i) + " is listed twice");
    types[i] = "at";
  }
  return from_layer_types(types, {{"base", base}, {"at", at}});
}

LayerIndices to_indices(const Expansion& e, const std::string& base, const std::string& at) {
  const std::vector<std::string> types = to_layer_types(e, {{"base", base}, {"at", at}});
  LayerIndices list;
  list.n_layers = static_cast<int64_t>(types.size());
  for (size_t i = 0; i < types.size(); ++i) {
    if (types[i] == "at") list.indices.push_back(static_cast<int64_t>(i));
  }
  return list;
}

}  // namespace strata
