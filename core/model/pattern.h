// Pattern strings: `M-M*-` and the grammar around it, expanded into a flat list of blocks.
//
//   pattern := main ("/" seq)*            "/" starts a multi-token-prediction depth
//   main    := seq ("|" seq)*             "|" is a pipeline-stage boundary, not a block
//   seq     := item*
//   item    := atom over* share? rep?
//   atom    := SYM | "<" name ">" | "(" seq ")" | "[" seq ("&" seq)+ (":" fuse)? "]"
//   over    := "{" key "=" value ("," key "=" value)* "}"
//   share   := "@" (LETTER | "{" ID ("," ID)* "}")
//   rep     := "^" INT
//
// `pattern_help()` is the same for readers. Nothing here knows plugins: whether a symbol is bound
// and a key is an option is asked of a lookup, in `resolve_options`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/contract/error.h"
#include "core/contract/options.h"

namespace strata {

inline constexpr size_t kMaxPatternBytes = 65536;  // of the string
inline constexpr size_t kMaxPatternBlocks = 4096;  // of the expansion, branches and depths included
inline constexpr size_t kMaxPatternDepth = 64;     // of brackets in brackets
inline constexpr size_t kMaxPatternOptions = 65536;  // of the expansion

// An option of a layer, written in the pattern.
struct PatternOption {
  // Where it was written decides who must know it.
  enum class Reach {
    own,       // M{k=v}: the layer must know it
    group,     // (M-){k=v}: at least one member must; the others go without
    if_known,  // M{k?=v}: the canonical spelling of the former on one block; nobody must
  };
  std::string key;
  OptionValue value;
  Reach reach = Reach::own;
  size_t position = 0;  // of the key, in Expansion::text
};

// How the host connects a block to the residual stream h; a plugin has no options of these names.
// With x = in_scale * norm(in) and y = out(out_scale * layer(x)):
//   to = h      h = h + y, or h = y when `add` is false (residual=none)
//   to = next   y is added to the next block's input before its norm, never to h
//   to = chain  y stands for h as the next block's input; h itself stays
// A group with residual=none becomes single blocks: `in` and `in_scale` go to its first member,
// `out`, `to` and `out_scale` to its last, `norm` and `lora` to all; members before the last are
// to=chain where the group has `to`, else residual=none. On any other group a wiring key goes to
// every block inside. In all of it the inner key wins.
struct Wiring {
  enum class To { h, next, chain };
  std::string in = "h";  // what the norm sees: names joined by '+' are concatenated along d_model
  bool add = true;       // residual
  bool out_linear = false;  // out=linear: a projection of this call's own, never shared
  To to = To::h;
  double in_scale = 1, out_scale = 1;
  std::string norm;  // kind of norm; empty: the model's
  int lora = 0;      // rank of this call's own adapter; 0: none
  bool operator==(const Wiring&) const = default;
};

// The weights of this layer are those of every layer with the same id and member.
struct Share {
  std::string id;   // of the parameters' name: shared.<id>...
  int member = 0;   // place of this layer within the shared item, 0 .. members - 1
  int members = 1;  // layers of the shared item
  int call = 0;     // how often the id was used before, in reading order
};

// One residual block: a layer, or parallel branches on one normed input. A branch is a list of
// blocks that feed each other without residual adds; the first sees the block's normed input, each
// later one is behind a norm of its own (of the block's kind). Within a branch only in_scale,
// out_scale, out and lora may be wired.
struct BlockSpec {
  std::string symbol;                  // "M", "*", or the name in <name>; "" with branches
  std::vector<PatternOption> options;  // sorted by key; none with branches
  Wiring wiring;                       // with branches, lora stands on the layers inside
  std::optional<Share> share;          // none with branches: stands on the layers inside
  std::vector<std::vector<BlockSpec>> branches;  // none, or at least two
  std::string fuse;                              // sum | mean | concat | gate | diff, with branches
  size_t position = 0;                           // of the atom, in Expansion::text
};

// What a pattern says, flat.
struct Expansion {
  std::string text;                         // as written
  std::vector<BlockSpec> blocks;            // the stack, in order
  std::vector<int> cuts;                    // a pipeline stage ends before blocks[cut]
  std::vector<std::vector<BlockSpec>> mtp;  // one list per multi-token-prediction depth
};

// Reads and expands a pattern. Throws Error with a caret under the place.
STRATA_API Expansion expand_pattern(std::string_view text);

// The one spelling of an expansion: flat, `|` left out, options sorted, wiring per block, defaults
// left out. Expanding it gives the same expansion. Options on groups are spelled `key?=value` until
// resolve_options has settled who takes them.
STRATA_API std::string canonical_pattern(const Expansion& e);

// canonical_pattern with the pipeline cuts.
STRATA_API std::string flat_pattern(const Expansion& e);

// The name of a stack: 16 hex digits, a 64-bit FNV-1a of the canonical pattern. Take it after
// resolve_options, so that (M-){d_state=64} and M{d_state=64}- have one name.
STRATA_API std::string pattern_hash(const Expansion& e);

// An option that a layer reads; the value that it falls back to says its type.
struct KnownOption {
  std::string key;
  OptionValue fallback;
};
// The options that a layer reads, given those that it has here (its options hold what the pattern
// says, groups included); nullopt when no layer is bound to its symbol. May throw Error.
using OptionLookup = std::function<std::optional<std::vector<KnownOption>>(const BlockSpec& layer)>;

// Settles every option: a group's goes to the members that know it and leaves the others, and an
// integer becomes a float where the option is one. Throws Error with a caret for an unbound symbol,
// for an option that its layer (or no member of its group) knows, naming the nearest known key, and
// for a value of another type. `lookup` is asked for every layer with options, and once for each
// symbol without.
STRATA_API void resolve_options(Expansion& e, const OptionLookup& lookup);

// Calls `visit` for every layer (the blocks without branches) in reading order; depths come last.
STRATA_API void for_each_layer(Expansion& e, const std::function<void(BlockSpec&)>& visit);
STRATA_API void for_each_layer(const Expansion& e,
                               const std::function<void(const BlockSpec&)>& visit);

// How often each symbol occurs in the stack (branches included, depths not), in order of
// appearance.
STRATA_API std::vector<std::pair<std::string, int>> symbol_counts(const Expansion& e);

// `27 M, 4 *, 25 -`
STRATA_API std::string symbol_summary(const Expansion& e);

// `block 7 'M'`, the name of blocks[index] in messages; parallel branches as `'[M&*]'`.
STRATA_API std::string block_name(const Expansion& e, size_t index);

// The block as a pattern, with its options and wiring.
STRATA_API std::string block_text(const BlockSpec& b);

// Whether the character may be the symbol of a layer.
STRATA_API bool is_pattern_symbol(char c);

// Whether the key belongs to the host: in, residual, out, to, in_scale, out_scale, norm, lora.
STRATA_API bool is_wiring_key(std::string_view key);

// Throws Error: the sentence, the pattern (long ones in part) and a caret under byte `position`.
[[noreturn]] STRATA_API void throw_at(std::string_view text, size_t position,
                                      const std::string& sentence);

// The grammar with examples, for `strata help pattern`.
STRATA_API std::string pattern_help();

}  // namespace strata
