// STRATA_LAYER(Class, 'X', "name"): makes a class a plugin. The one exported symbol carries the ABI
// major and minor and the compiler's tag in its name, so that the host can refuse a plugin before
// any of its code runs.
#pragma once

#include <memory>
#include <type_traits>

#include "core/contract/layer.h"

#define STRATA_ABI_MAJOR 1
#define STRATA_ABI_MINOR 0

#define STRATA_STRINGIFY_(x) #x
#define STRATA_STRINGIFY(x) STRATA_STRINGIFY_(x)
#define STRATA_JOIN_(a, b, c, d, e) a##b##_##c##_##d##_##e
#define STRATA_JOIN(a, b, c, d, e) STRATA_JOIN_(a, b, c, d, e)

// The tag names what decides the layout of std types: the standard library and its string ABI.
#if defined(_GLIBCXX_USE_CXX11_ABI) && _GLIBCXX_USE_CXX11_ABI
#define STRATA_STDLIB_TAG libstdcxx11
#elif defined(_LIBCPP_VERSION)
#define STRATA_STDLIB_TAG libcxx
#else
#define STRATA_STDLIB_TAG libstdcxxold
#endif
#if defined(__SANITIZE_ADDRESS__)
#define STRATA_COMPILER_TAG itanium_asan
#else
#define STRATA_COMPILER_TAG itanium
#endif

#define STRATA_PLUGIN_PREFIX "strata_plugin_"
#define STRATA_PLUGIN_SYMBOL                                                           \
  STRATA_JOIN(strata_plugin_, STRATA_ABI_MAJOR, STRATA_ABI_MINOR, STRATA_COMPILER_TAG, \
              STRATA_STDLIB_TAG)
#define STRATA_PLUGIN_SYMBOL_NAME STRATA_STRINGIFY(STRATA_PLUGIN_SYMBOL)

namespace strata {

enum Hook : uint32_t { kForward = 1, kBackward = 2, kState = 4, kQuantize = 8, kAfterStep = 16 };

// What the exported symbol is. Plain bytes up to `create`, so that the host reads them from the
// file without loading it.
struct PluginInfo {
  uint32_t struct_size;
  char name[48];       // "mamba2"
  char symbol;         // 'M'
  char aliases[171];   // further symbols with preset options: "w{window=4096}", or ""
  uint32_t own_hooks;  // Hook bits that the class overrides
  std::unique_ptr<Layer> (*create)(const LayerConfig& config);
};

// Which hooks a layer class overrides, found at compile time.
template <class L>
constexpr uint32_t own_hooks() {
  uint32_t hooks = kForward;
  if (!std::is_same_v<decltype(&L::backward), decltype(&Layer::backward)>) hooks |= kBackward;
  if (!std::is_same_v<decltype(&L::state), decltype(&Layer::state)>) hooks |= kState;
  if (!std::is_same_v<decltype(&L::quantize), decltype(&Layer::quantize)>) hooks |= kQuantize;
  if (!std::is_same_v<decltype(&L::after_step), decltype(&Layer::after_step)>) hooks |= kAfterStep;
  return hooks;
}

template <class L>
std::unique_ptr<Layer> create_layer(const LayerConfig& config) {
  return std::make_unique<L>(config);
}

}  // namespace strata

// The optional last argument names aliases with preset options: "w{window=4096}".
#define STRATA_LAYER(Class, symbol, name, ...)                                               \
  extern "C" __attribute__((visibility("default"), used))                                    \
  const strata::PluginInfo STRATA_PLUGIN_SYMBOL{                                             \
      sizeof(strata::PluginInfo),  name, symbol, "" __VA_ARGS__, strata::own_hooks<Class>(), \
      &strata::create_layer<Class>};
