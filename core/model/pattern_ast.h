// The parsed form of a pattern, before expansion. Internal to the pattern files.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/model/pattern.h"

namespace strata::pattern {

// key=value or key?=value between braces.
struct WrittenOption {
  std::string key;
  OptionValue value;
  bool if_known = false;
  size_t position = 0;        // of the key
  size_t value_position = 0;  // of the value
};

struct Item;
using Seq = std::vector<Item>;

struct Item {
  enum class Kind { symbol, group, parallel };
  Kind kind = Kind::symbol;
  std::string symbol;         // of Kind::symbol
  std::vector<Seq> children;  // one of a group, two or more of parallel branches
  std::string fuse;           // of Kind::parallel
  std::vector<WrittenOption> options;
  std::vector<std::string> share;  // empty: not shared; several: in rotation
  size_t repeat = 1;
  size_t position = 0, share_position = 0;
};

struct Tree {
  std::vector<Seq> stages;  // at least one
  std::vector<Seq> depths;
};

// Reads the whole text. The number of layers of the expansion is known to be within
// kMaxPatternBlocks when it returns. Throws Error with a caret.
Tree parse(std::string_view text);

// Reads the value at `pos` and moves behind it. Throws Error with a caret.
OptionValue parse_value(std::string_view text, size_t& pos);

// Throws Error with a caret unless the host's key can have this value.
void check_wiring(std::string_view text, const WrittenOption& option);

// A value as it is written in a pattern.
std::string value_text(const OptionValue& value);

// Length of the valid UTF-8 sequence at pos, 0 when there is none.
size_t utf8_length(std::string_view text, size_t pos);

bool is_space(char c);
bool is_letter(char c);
bool is_digit(char c);
bool is_name_start(char c);  // a letter or '_'

// `blocks` as a pattern, without brackets around. Shares and wiring are left out on demand.
struct Spelling {
  bool wiring = true, shares = true;
};
std::string blocks_text(const std::vector<BlockSpec>& blocks, Spelling spelling = {},
                        const std::vector<int>* cuts = nullptr);

}  // namespace strata::pattern
