#include "core/model/layer_factory.h"

namespace strata {

LayerFactory::~LayerFactory() = default;

}  // namespace strata
