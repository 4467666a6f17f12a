// From the parsed tree to the flat list of blocks: repetition, options of groups, wiring, shares.
#include <map>

#include "core/model/pattern_ast.h"

namespace strata {
namespace {

using pattern::Item;
using pattern::Seq;
using pattern::WrittenOption;

using Keys = std::map<std::string_view, const WrittenOption*>;

// What the brackets around an item say about it.
struct Scope {
  enum class Place { stream, chain, branch };
  Place place = Place::stream;
  Keys options, wiring;
  bool shared = false;
};

// A block whose wiring may still be completed by the group around it.
struct Draft {
  BlockSpec block;
  Keys wiring;
};

bool word_is(const Keys& keys, std::string_view key, std::string_view word) {
  const auto found = keys.find(key);
  return found != keys.end() && std::get<std::string>(found->second->value) == word;
}

Wiring wiring_of(const Keys& keys) {
  Wiring w;
  for (const auto& [key, option] : keys) {
    const OptionValue& value = option->value;
    const int64_t* integer = std::get_if<int64_t>(&value);
    auto number = [&] { return integer ? static_cast<double>(*integer) : std::get<double>(value); };
    if (key == "in") w.in = std::get<std::string>(value);
    if (key == "residual") w.add = std::get<std::string>(value) == "add";
    if (key == "out") w.out_linear = std::get<std::string>(value) == "linear";
    if (key == "to") {
      const std::string& to = std::get<std::string>(value);
      w.to = to == "h" ? Wiring::To::h : to == "next" ? Wiring::To::next : Wiring::To::chain;
    }
    if (key == "in_scale") w.in_scale = number();
    if (key == "out_scale") w.out_scale = number();
    if (key == "norm") w.norm = std::get<std::string>(value);
    if (key == "lora") w.lora = static_cast<int>(*integer);
  }
  if (w.to != Wiring::To::h) w.add = true;  // nothing is added to h in either case
  return w;
}

void number_layers(BlockSpec& block, const Share& share, int& member) {
  for (auto& branch : block.branches) {
    for (BlockSpec& inner : branch) number_layers(inner, share, member);
  }
  if (!block.branches.empty()) return;
  block.share = share;
  block.share->member = member++;
}

class Expander {
 public:
  explicit Expander(std::string_view text) : text_(text) {}

  std::vector<BlockSpec> stack(const std::vector<Seq>& stages, std::vector<int>* cuts) {
    std::vector<Draft> drafts;
    for (size_t s = 0; s < stages.size(); ++s) {
      if (s > 0) cuts->push_back(static_cast<int>(drafts.size()));
      for (const Item& item : stages[s]) expand(item, Scope{}, drafts);
    }
    if (!drafts.empty() && (word_is(drafts.back().wiring, "to", "next") ||
                            word_is(drafts.back().wiring, "to", "chain"))) {
      throw_at(text_, drafts.back().wiring["to"]->position,
               "'to' sends the output of " +
                   std::string("the last block to a block that does not exist"));
    }
    return finish(std::move(drafts));
  }

 private:
  static const WrittenOption* chain_word() {
    static const WrittenOption option{"to", std::string("chain"), false, 0, 0};
    return &option;
  }

  static std::vector<BlockSpec> finish(std::vector<Draft> drafts) {
    std::vector<BlockSpec> blocks;
    for (Draft& d : drafts) {
      d.block.wiring = wiring_of(d.wiring);
      blocks.push_back(std::move(d.block));
    }
    return blocks;
  }

  void expand(const Item& item, const Scope& scope, std::vector<Draft>& out) {
    if (!item.share.empty() && scope.shared) {
      throw_at(text_, item.share_position, "a share cannot stand within a shared item");
    }
    for (size_t r = 0; r < item.repeat; ++r) {
      const size_t begin = out.size();
      Scope inner = scope;
      inner.shared = scope.shared || !item.share.empty();
      place(item, inner, out);
      if (!item.share.empty()) share(item, begin, out);
    }
  }

  void place(const Item& item, Scope& scope, std::vector<Draft>& out) {
    Keys own;
    for (const WrittenOption& option : item.options) {
      if (!is_wiring_key(option.key)) {
        (item.kind == Item::Kind::symbol ? own : scope.options)[option.key] = &option;
        continue;
      }
      check_place(item, option, scope);
      scope.wiring[option.key] = &option;
    }
    if (item.kind == Item::Kind::group) return group(item, scope, out);
    Draft draft;
    draft.block.position = item.position;
    if (item.kind == Item::Kind::symbol) {
      draft.block.symbol = item.symbol;
      draft.block.options = options(own, scope.options);
    } else {
      branches(item, scope, draft.block);
    }
    draft.wiring = scope.wiring;
    out.push_back(std::move(draft));
  }

  void check_place(const Item&, const WrittenOption& option, const Scope& scope) const {
    const bool stream_key = option.key == "residual" || option.key == "to";
    if (scope.place == Scope::Place::branch &&
        (stream_key || option.key == "in" || option.key == "norm")) {
      throw_at(text_, option.position,
               "'" + option.key + "' belongs to the parallel branches as a whole, behind the ']'");
    }
    if (scope.place == Scope::Place::chain && stream_key) {
      throw_at(text_, option.position,
               "'" + option.key + "' is already settled by residual=none of the group around");
    }
  }

  // The layer's own options and those of the groups around, sorted by key.
  std::vector<PatternOption> options(const Keys& own, const Keys& inherited) {
    Keys all = own;
    all.insert(inherited.begin(), inherited.end());
    std::vector<PatternOption> out;
    for (const auto& [key, option] : all) {
      const bool mine = own.count(key) > 0;
      out.push_back({option->key, option->value,
                     option->if_known ? PatternOption::Reach::if_known
                     : mine           ? PatternOption::Reach::own
                                      : PatternOption::Reach::group,
                     option->position});
    }
    option_count_ += out.size();
    if (option_count_ > kMaxPatternOptions) {
      throw_at(text_, all.begin()->second->position,
               "the expansion has more than " + std::to_string(kMaxPatternOptions) +
                   " options; use [layers.X] for those of all blocks");
    }
    return out;
  }

  void branches(const Item& item, Scope& scope, BlockSpec& block) {
    Scope inside = scope;
    inside.place = Scope::Place::branch;
    inside.wiring.clear();
    if (const auto lora = scope.wiring.find("lora"); lora != scope.wiring.end()) {
      inside.wiring.insert(*lora);
      scope.wiring.erase(lora);
    }
    block.fuse = item.fuse;
    for (const Seq& child : item.children) {
      std::vector<Draft> drafts;
      for (const Item& inner : child) expand(inner, inside, drafts);
      block.branches.push_back(finish(std::move(drafts)));
    }
  }

  void group(const Item& item, const Scope& scope, std::vector<Draft>& out) {
    const bool chain = word_is(scope.wiring, "residual", "none");
    Scope inside = scope;
    if (chain) {
      inside.place = Scope::Place::chain;
      for (const char* key : {"in", "in_scale", "out", "out_scale", "residual", "to"})
        inside.wiring.erase(key);
    }
    const size_t begin = out.size();
    for (const Item& inner : item.children[0]) expand(inner, inside, out);
    if (!chain) return;
    auto complete = [&](Draft& draft, std::initializer_list<const char*> keys) {
      for (const char* key : keys) {
        if (const auto found = scope.wiring.find(key); found != scope.wiring.end())
          draft.wiring.insert(*found);
      }
    };
    complete(out[begin], {"in", "in_scale"});
    complete(out.back(), {"out", "out_scale", "to"});
    const bool elsewhere =
        word_is(scope.wiring, "to", "next") || word_is(scope.wiring, "to", "chain");
    for (size_t i = begin; i < out.size(); ++i) {
      complete(out[i], {"residual"});
      if (elsewhere && i + 1 < out.size()) out[i].wiring["to"] = chain_word();
    }
  }

  // Names the weights of out[begin..]; the same name must always hold the same layers.
  void share(const Item& item, size_t begin, std::vector<Draft>& out) {
    std::string list;
    for (const std::string& id : item.share) list += id + ",";
    const size_t turn = item.share.size() > 1 ? rotation_[list]++ : 0;
    Share share;
    share.id = item.share[turn % item.share.size()];
    std::vector<BlockSpec> blocks;
    for (size_t i = begin; i < out.size(); ++i) blocks.push_back(out[i].block);
    const std::string content = pattern::blocks_text(blocks, {.wiring = false, .shares = false});
    auto [known, first] = uses_.try_emplace(share.id, content, 0);
    if (!first && known->second.first != content) {
      auto brief = [](const std::string& s) { return s.size() > 60 ? s.substr(0, 60) + "..." : s; };
      throw_at(text_, item.share_position,
               "the share '" + share.id + "' is " + brief(content) + " here and " +
                   brief(known->second.first) + " before; the same name means the same weights");
    }
    share.call = known->second.second++;
    for (int pass = 0; pass < 2; ++pass) {  // the number of members is known after the first
      int member = 0;
      for (size_t i = begin; i < out.size(); ++i) number_layers(out[i].block, share, member);
      share.members = member;
    }
  }

  std::string_view text_;
  size_t option_count_ = 0;
  std::map<std::string, size_t> rotation_;
  std::map<std::string, std::pair<std::string, int>> uses_;  // id -> what it is, calls so far
};

}  // namespace

Expansion expand_pattern(std::string_view text) {
  const pattern::Tree tree = pattern::parse(text);
  Expansion e;
  e.text = text;
  Expander expander(text);
  e.blocks = expander.stack(tree.stages, &e.cuts);
  for (const Seq& depth : tree.depths) e.mtp.push_back(expander.stack({depth}, nullptr));
  return e;
}

}  // namespace strata
