#include "experiments/evaluate/inspect.h"

#include <algorithm>
#include <map>
#include <set>

namespace strata {

ModelFacts model_facts(const Config& config, LayerFactory& factory) {
  Model model(config, factory);
  ModelFacts f;
  f.pattern = flat_pattern(model.expansion());
  f.hash = pattern_hash(model.expansion());
  f.summary = symbol_summary(model.expansion());
  f.blocks = int64_t(model.expansion().blocks.size());
  f.d_model = config.model.d_model;
  f.vocab_size = config.model.vocab_size;
  f.parameters = model.params().count();
  f.cache = model.cache_layout();

  std::map<std::string, int64_t> counts;
  for (const NamedParam& p : model.params().all()) {
    counts[p.symbol.empty() ? "host" : p.symbol] += p.slot->shape.numel();
  }
  f.by_symbol.assign(counts.begin(), counts.end());
  std::stable_sort(f.by_symbol.begin(), f.by_symbol.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });

  std::set<int> keeping;
  for (const CacheEntry& entry : f.cache.entries) keeping.insert(entry.site);
  const std::vector<StackBlock>& blocks = model.stack().blocks();
  for (size_t i = 0; i < blocks.size(); ++i) {
    bool keeps = blocks[i].branches.empty() && keeping.count(blocks[i].site.id) > 0;
    for (const auto& branch : blocks[i].branches) {
      for (const StackBlock& member : branch) keeps |= keeping.count(member.site.id) > 0;
    }
    f.all_attention += keeps ? "*" : block_text(model.expansion().blocks[i]);
  }
  return f;
}

PoolBytes pool_bytes(const CacheLayout& cache, int64_t context) {
  PoolBytes bytes;
  bytes.state = cache.slot_bytes;
  for (const PageGroup& group : cache.groups) {
    int64_t pages = (context + kPageTokens - 1) / kPageTokens;
    if (group.growth.kind == Growth::Kind::window) {
      // A window that ends anywhere in a page touches one page more than its length fills.
      const int64_t sinks = (group.growth.sinks + kPageTokens - 1) / kPageTokens;
      const int64_t window = (group.growth.window + kPageTokens - 1) / kPageTokens + 1;
      pages = std::min(pages, sinks + window);
    }
    bytes.pages += pages * group.page_bytes;
  }
  return bytes;
}

}  // namespace strata
