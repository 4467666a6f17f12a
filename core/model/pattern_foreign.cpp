// Spellings with one letter per block, and the check of stated layer counts.
#include "core/model/pattern_foreign.h"

namespace strata {
namespace {

constexpr std::string_view kMegatron = "MG*D+-E", kHybridOverride = "M*-E";

std::string spaced(std::string_view symbols) {
  std::string out;
  for (char c : symbols) out += (out.empty() ? "" : " ") + std::string(1, c);
  return out;
}

// Throws unless the text consists of the symbols, white space and the separators.
void check_symbols(std::string_view text, std::string_view symbols, std::string_view separators,
                   const std::string& target) {
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const bool known = symbols.find(c) != symbols.npos || separators.find(c) != separators.npos;
    if (!known && std::string_view(" \t\r\n").find(c) == std::string_view::npos) {
      throw_at(text, i, target + " has no such symbol; it has " + spaced(symbols));
    }
  }
}

// The block as one of the target's symbols.
char symbol_of(const BlockSpec& b, const std::string& name, std::string_view symbols,
               const std::string& target) {
  auto refuse = [&](const std::string& what) {
    throw Error(name + ": " + target + " cannot say " + what);
  };
  if (!b.branches.empty()) refuse("parallel branches");
  if (b.share) refuse("that weights are shared (@" + b.share->id + ")");
  if (!b.options.empty()) refuse("options of single blocks (" + block_text(b) + ")");
  if (b.wiring != Wiring{}) refuse("wiring (" + block_text(b) + ")");
  if (b.symbol.size() != 1 || symbols.find(b.symbol[0]) == symbols.npos) {
    refuse("this layer; its symbols are " + spaced(symbols));
  }
  return b.symbol[0];
}

std::string symbols_of(const Expansion& e, std::string_view symbols, bool cuts,
                       const std::string& target) {
  std::string out;
  size_t cut = 0;
  for (size_t i = 0; i <= e.blocks.size(); ++i) {
    for (; cuts && cut < e.cuts.size() && static_cast<size_t>(e.cuts[cut]) <= i; ++cut) out += '|';
    if (i < e.blocks.size()) out += symbol_of(e.blocks[i], block_name(e, i), symbols, target);
  }
  return out;
}

// Megatron builds one kind of attention per model.
void check_attention(std::string_view text) {
  const size_t other = text.find_first_of("D+");
  const size_t full = text.find('*');
  if (other != text.npos && full != text.npos) {
    throw_at(text, std::max(other, full), "Megatron does not mix '*' with 'D' or '+'");
  }
}

}  // namespace

std::string from_megatron(std::string_view text) {
  check_symbols(text, kMegatron, "|/", "a Megatron pattern");
  check_attention(text);
  const Expansion e = expand_pattern(text);
  return to_megatron(e);
}

std::string to_megatron(const Expansion& e) {
  const std::string target = "a Megatron pattern";
  std::string out = symbols_of(e, kMegatron, true, target), first;
  for (size_t d = 0; d < e.mtp.size(); ++d) {
    std::string depth;
    for (size_t i = 0; i < e.mtp[d].size(); ++i) {
      const BlockSpec& b = e.mtp[d][i];
      depth += symbol_of(
          b, "depth " + std::to_string(d) + ", block " + std::to_string(i) + " '" + b.symbol + "'",
          kMegatron, target);
    }
    if (d == 0) first = depth;
    if (depth != first) {
      throw Error("depth " + std::to_string(d) + " is " + depth + ", depth 0 is " + first + ": " +
                  target + " cannot say depths that differ");
    }
    out += "/" + depth;
  }
  check_attention(out);
  return out;
}

std::string from_hybrid_override(std::string_view text) {
  check_symbols(text, kHybridOverride, "", "hybrid_override_pattern");
  return flat_pattern(expand_pattern(text));
}

std::string to_hybrid_override(const Expansion& e) {
  if (!e.mtp.empty())
    throw Error("hybrid_override_pattern cannot say multi-token-prediction depths ('/')");
  return symbols_of(e, kHybridOverride, false, "hybrid_override_pattern");
}

void check_layer_count(std::string_view text, int64_t stated, const std::string& where) {
  const Expansion e = expand_pattern(text);
  const int64_t found = static_cast<int64_t>(e.blocks.size());
  if (found == stated) return;
  std::string message = (where.empty() ? "" : where + ": ") + "the number of layers is stated as " +
                        std::to_string(stated) + ", but the pattern has " + std::to_string(found) +
                        " blocks (" + symbol_summary(e) + "); correct the one that is wrong";
  const bool nemotron = canonical_pattern(e).find_first_not_of("M*-") == std::string::npos;
  if (nemotron && (stated == 56 || found == 56)) {
    message +=
        " (Nemotron-Nano-9B-v2 has 56, (M-)^3M(M-)^3M*-(M-)^2M*-((M-)^3M*-)^2M-M(M-)^6, and is "
        "often misprinted with 46 or 52)";
  }
  throw Error(message);
}

}  // namespace strata
