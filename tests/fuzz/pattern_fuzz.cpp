// Any bytes as a pattern: refused with an Error, or expanded, spelled canonically and read back.
#include <cstdint>
#include <cstdlib>

#include "core/model/pattern.h"
#include "core/model/pattern_foreign.h"
#include "core/model/placement.h"

namespace {

// Runs `f`; an Error is a proper answer.
template <typename F>
void allow_refusal(const F& f) {
  try {
    f();
  } catch (const strata::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace strata;
  const std::string text(reinterpret_cast<const char*>(data), size);
  allow_refusal([&] { places_of(text, 64); });
  allow_refusal([&] { generate_pattern(text); });
  allow_refusal([&] { from_megatron(text); });
  Expansion e;
  try {
    e = expand_pattern(text);
  } catch (const Error&) {
    return 0;
  }
  if (e.blocks.empty() || e.blocks.size() > kMaxPatternBlocks) std::abort();
  const std::string canonical = canonical_pattern(e);
  if (canonical.size() <= kMaxPatternBytes) {
    const Expansion again = expand_pattern(canonical);
    if (canonical_pattern(again) != canonical || again.blocks.size() != e.blocks.size())
      std::abort();
    if (pattern_hash(again) != pattern_hash(e)) std::abort();
  }
  allow_refusal([&] { to_megatron(e); });
  allow_refusal([&] {
    to_layer_types(e, {{"mamba", "M-"}, {"attention", "*-"}, {"both", "[M&*]"}});
  });
  allow_refusal([&] { to_periods(e); });
  allow_refusal([&] {
    resolve_options(e, [](const BlockSpec& layer) -> std::optional<std::vector<KnownOption>> {
      if (layer.symbol == "-") return std::vector<KnownOption>{};
      return std::vector<KnownOption>{{"a", int64_t{0}}, {"b", 0.5}};
    });
    canonical_pattern(e);
  });
  return 0;
}
