#include "core/model/placement.h"

#include <charconv>
#include <cmath>

#include "core/model/pattern.h"

namespace strata {
namespace {

// Python's round: halves go to the even neighbour, whatever the rounding mode.
int64_t round_half_even(double x) {
  const double below = std::floor(x), rest = x - below;
  const int64_t n = static_cast<int64_t>(below);
  return n + (rest > 0.5 || (rest == 0.5 && n % 2 != 0));
}

// Turns the members of `slots` into `symbol` at even distances: with g slots of the remaining kind
// per gap, a slot is taken when less than half a slot is left to the end of the gap.
void spread(std::string& stack, const std::vector<size_t>& slots, double gap, char symbol) {
  double left = gap;
  for (size_t slot : slots) {
    if (left < 0.5) {
      stack[slot] = symbol;
      left += gap;
    } else {
      left -= 1;
    }
  }
}

std::vector<size_t> slots_of(const std::string& stack, char symbol) {
  std::vector<size_t> slots;
  for (size_t i = 0; i < stack.size(); ++i) {
    if (stack[i] == symbol) slots.push_back(i);
  }
  return slots;
}

struct Call {
  std::string name;
  std::vector<double> arguments;
};

// name(number, number, ...); nullopt when the text is not of this form.
bool read_call(std::string_view text, Call& call) {
  std::string s;
  for (char c : text) {
    if (c != ' ' && c != '\t') s += c;
  }
  const size_t open = s.find('(');
  if (open == s.npos || open == 0 || s.back() != ')') return false;
  call.name = s.substr(0, open);
  const char* at = s.data() + open + 1;
  const char* const end = s.data() + s.size() - 1;
  while (at < end) {
    double value = 0;
    const auto [stop, ec] = std::from_chars(at, end, value);
    if (ec != std::errc() || !std::isfinite(value)) return false;
    call.arguments.push_back(value);
    if (stop == end) return true;
    if (*stop != ',') return false;
    at = stop + 1;
  }
  return false;
}

int64_t whole(double x, std::string_view rule) {
  if (std::floor(x) != x || std::abs(x) > 1e9) {
    throw Error("placement rule '" + std::string(rule) + "': the arguments must be whole numbers");
  }
  return static_cast<int64_t>(x);
}

}  // namespace

std::string place(const std::string& base, const Placements& placements) {
  Expansion e = expand_pattern(base);
  std::vector<std::string> taken(e.blocks.size());
  for (const auto& [text, places] : placements) {
    const Expansion piece = expand_pattern(text);
    if (piece.blocks.size() != 1 || !piece.mtp.empty() || !piece.cuts.empty()) {
      throw Error("place: '" + text + "' must be a pattern of one block, it has " +
                  std::to_string(piece.blocks.size()));
    }
    for (int64_t i : places) {
      if (i < 0 || static_cast<size_t>(i) >= e.blocks.size()) {
        throw Error("place: '" + text + "' at " + std::to_string(i) +
                    " lies outside of the base, whose places are 0 to " +
                    std::to_string(e.blocks.size() - 1));
      }
      BlockSpec& block = e.blocks[i];
      if (!taken[i].empty()) {
        throw Error("place: " + std::to_string(i) + " is given to '" + taken[i] + "' and to '" +
                    text + "'; a place holds one block");
      }
      if (block.share && block.share->members > 1) {
        throw Error("place: " + block_name(e, i) + " of the base belongs to the shared group '" +
                    block.share->id + "', and one member of a share cannot be replaced");
      }
      taken[i] = text;
      block = piece.blocks[0];
    }
  }
  const std::string flat = flat_pattern(e);
  expand_pattern(flat);  // a share may now name two different layers
  return flat;
}

std::string even(int64_t n, double attn, double mlp) {
  auto ratio = [](double x) { return x >= 0 && x <= 1; };
  if (n < 1 || n > static_cast<int64_t>(kMaxPatternBlocks)) {
    throw Error("even: the number of blocks must be from 1 to " +
                std::to_string(kMaxPatternBlocks) + ", got " + std::to_string(n));
  }
  if (!ratio(attn) || !ratio(mlp) || !(attn + mlp <= 1)) {
    throw Error(
        "even: the ratios of attention and mlp must be from 0 to 1 and at most 1 together, got " +
        std::to_string(attn) + " and " + std::to_string(mlp));
  }
  std::string stack(n, 'M');
  const int64_t attentions = round_half_even(static_cast<double>(n) * attn);
  const int64_t mambas = n - attentions;
  spread(stack, slots_of(stack, 'M'),
         static_cast<double>(mambas) / static_cast<double>(attentions + 1), '*');
  const int64_t mlps = round_half_even(static_cast<double>(n) * mlp);
  if (mlps > 0)
    spread(stack, slots_of(stack, 'M'),
           static_cast<double>(mambas - mlps) / static_cast<double>(mlps), '-');
  return stack;
}

std::vector<int64_t> period(int64_t n, int64_t p, int64_t o) {
  if (p < 1 || o < 0 || o >= p) {
    throw Error("period(p, o): the offset must be from 0 to p - 1, got p = " + std::to_string(p) +
                " and o = " + std::to_string(o));
  }
  std::vector<int64_t> places;
  for (int64_t i = o; i < n; i += p) places.push_back(i);
  return places;
}

std::vector<int64_t> interval(int64_t n, int64_t k) {
  if (k < 1) throw Error("interval(k): k must be at least 1, got " + std::to_string(k));
  return period(n, k, k - 1);
}

std::vector<int64_t> places_of(std::string_view rule, int64_t n) {
  Call call;
  if (read_call(rule, call)) {
    const auto& a = call.arguments;
    if (call.name == "period" && a.size() == 2)
      return period(n, whole(a[0], rule), whole(a[1], rule));
    if (call.name == "interval" && a.size() == 1) return interval(n, whole(a[0], rule));
  }
  throw Error("placement rule '" + std::string(rule) +
              "' is not one of period(p, o), interval(k); a list of places such as [9, 18, 27] is "
              "the third way");
}

bool is_generator(std::string_view text) {
  Call call;
  return read_call(text, call) && call.name == "even";
}

std::string generate_pattern(std::string_view text) {
  Call call;
  if (!read_call(text, call) || call.name != "even" || call.arguments.size() != 3) {
    throw Error("generator '" + std::string(text) +
                "' is not of the form even(n, attn, mlp), such as even(56, 0.08, 0.5)");
  }
  return even(whole(call.arguments[0], text), call.arguments[1], call.arguments[2]);
}

}  // namespace strata
