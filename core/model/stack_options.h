// Where the options of a block come from.
#pragma once

#include <string>

#include "core/model/config.h"
#include "core/model/layer_factory.h"
#include "core/model/pattern.h"

namespace strata {

// The options of a symbol below the pattern's own: its preset, then [layers.name], then [layers.X].
// Throws Error for an unbound symbol.
STRATA_API Options symbol_options(const std::string& symbol, const Config& config,
                                  LayerFactory& factory);

// resolve_options with the options that the layers' constructors read. Throws Error with a caret,
// and for a [layers.X] that no layer is called by. After it, canonical_pattern and pattern_hash of
// two spellings of one stack are equal.
STRATA_API void settle_options(Expansion& e, const Config& config, LayerFactory& factory);

}  // namespace strata
