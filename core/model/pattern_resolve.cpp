// Which layer takes which option.
#include <algorithm>
#include <map>
#include <set>

#include "core/model/pattern_ast.h"

namespace strata {
namespace {

// `; did you mean 'd_state'?`, or every key when none is near.
std::string hint(const std::string& key, const std::vector<KnownOption>& known) {
  std::vector<std::string> keys;
  std::string all;
  for (const KnownOption& k : known) {
    keys.push_back(k.key);
    all += (all.empty() ? "" : ", ") + k.key;
  }
  const std::string best = nearest(key, keys);
  if (!best.empty()) return "; did you mean '" + best + "'?";
  return all.empty() ? "; it has no options" : "; its options are " + all;
}

// Brings the value to the type of the fallback: an integer may stand for a float, nothing else.
void convert(const Expansion& e, PatternOption& option, const OptionValue& fallback) {
  if (const int64_t* i = std::get_if<int64_t>(&option.value);
      i && std::holds_alternative<double>(fallback)) {
    option.value = static_cast<double>(*i);
  }
  if (option.value.index() == fallback.index()) return;
  throw_at(e.text, option.position,
           "the option '" + option.key + "' is of type " + type_name(fallback) + ", got the " +
               type_name(option.value) + " " + pattern::value_text(option.value));
}

}  // namespace

void resolve_options(Expansion& e, const OptionLookup& lookup) {
  struct GroupOption {
    std::string key;
    std::vector<KnownOption> known;  // to the first member
    bool taken = false;
  };
  std::map<size_t, GroupOption> groups;  // by position of the key
  std::set<std::string> bound;
  for_each_layer(e, [&](BlockSpec& block) {
    if (block.options.empty() && bound.count(block.symbol) > 0) return;
    const auto known = lookup(block);
    if (!known) {
      throw_at(e.text, block.position,
               "no layer is bound to '" + block.symbol + "'; `strata layers` lists those that are");
    }
    bound.insert(block.symbol);
    std::vector<PatternOption> kept;
    for (PatternOption& option : block.options) {
      const auto match = std::find_if(known->begin(), known->end(),
                                      [&](const KnownOption& k) { return k.key == option.key; });
      if (option.reach == PatternOption::Reach::group) {
        GroupOption& group =
            groups.try_emplace(option.position, GroupOption{option.key, *known, false})
                .first->second;
        group.taken |= match != known->end();
      }
      if (match == known->end()) {
        if (option.reach != PatternOption::Reach::own) continue;
        throw_at(e.text, option.position,
                 "'" + option.key + "' is not an option of '" + block.symbol + "'" +
                     hint(option.key, *known));
      }
      convert(e, option, match->fallback);
      option.reach = PatternOption::Reach::own;
      kept.push_back(std::move(option));
    }
    block.options = std::move(kept);
  });
  for (const auto& [position, group] : groups) {
    if (group.taken) continue;
    throw_at(e.text, position,
             "'" + group.key + "' is not an option of any layer in this group" +
                 hint(group.key, group.known));
  }
}

}  // namespace strata
