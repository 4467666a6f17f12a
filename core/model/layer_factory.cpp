#include "core/model/layer_factory.h"

namespace strata {

LayerFactory::~LayerFactory() = default;

void LayerFactory::use_device(Device) {}

}  // namespace strata
