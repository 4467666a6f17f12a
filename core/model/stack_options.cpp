#include "core/model/stack_options.h"

namespace strata {
namespace {

// What the constructor of the layer reads. When it refuses, whatever stands there counts as known:
// assembly meets the same refusal and says the block.
std::vector<KnownOption> reads_of(const BlockSpec& layer, const Config& config,
                                  LayerFactory& factory, int64_t n_blocks) {
  Options options = symbol_options(layer.symbol, config, factory);
  for (const PatternOption& o : layer.options) options[o.key] = o.value;
  const LayerConfig trial(config.model.d_model, n_blocks, std::move(options), layer.symbol);
  std::vector<KnownOption> known;
  try {
    factory.create(layer.symbol, trial);
    for (const LayerConfig::Read& read : trial.reads()) known.push_back({read.key, read.fallback});
  } catch (const std::exception&) {  // a foreign plugin may throw anything
    for (const PatternOption& o : layer.options) known.push_back({o.key, o.value});
  }
  return known;
}

}  // namespace

Options symbol_options(const std::string& symbol, const Config& config, LayerFactory& factory) {
  Options options = factory.preset(symbol);
  for (const std::string& key : {factory.name_of(symbol), symbol}) {
    const auto it = config.layers.find(key);
    if (it == config.layers.end()) continue;
    for (const auto& [option, value] : it->second) options[option] = value;
  }
  return options;
}

void settle_options(Expansion& e, const Config& config, LayerFactory& factory) {
  for (const auto& [name, options] : config.layers) {
    try {
      factory.name_of(name);
    } catch (const Error& error) {
      throw Error("[layers." + name + "]: " + error.what(), error.kind());
    }
  }
  const int64_t n_blocks = static_cast<int64_t>(e.blocks.size());
  resolve_options(e, [&](const BlockSpec& layer) -> std::optional<std::vector<KnownOption>> {
    try {
      factory.name_of(layer.symbol);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::input) throw;
      throw_at(e.text, layer.position, error.what());
    }
    if (layer.options.empty()) return std::vector<KnownOption>{};
    return reads_of(layer, config, factory, n_blocks);
  });
}

}  // namespace strata
