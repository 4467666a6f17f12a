// How a stack gets its layers. plugins/host implements this by loading libraries; a test needs
// three lines and no shared library.
#pragma once

#include <memory>
#include <string>

#include "core/contract/layer.h"

namespace strata {

class STRATA_API LayerFactory {
 public:
  virtual ~LayerFactory();

  // Layers made from now on run on this device: whatever it needs is loaded. Throws Error when it
  // cannot be.
  virtual void use_device(Device device);

  // The layer bound to a symbol ("M") or a name ("mamba2"). Throws Error for an unknown one, naming
  // the nearest, and whatever the layer's constructor throws.
  virtual std::unique_ptr<Layer> create(const std::string& symbol, const LayerConfig& config) = 0;

  // The plugin's name for a symbol or an alias ("M" -> "mamba2", "w" -> "attention").
  virtual std::string name_of(const std::string& symbol) = 0;

  // Options that a symbol brings ("w" -> {window = 4096}); they lie below [layers.X].
  virtual Options preset(const std::string& symbol) = 0;

  // Hook bits that the class overrides (core/contract/plugin.h).
  virtual uint32_t own_hooks(const std::string& symbol) = 0;
};

}  // namespace strata
