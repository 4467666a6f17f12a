// What a sequence carries: prefill and one-token steps equal the full forward, in any cut; states
// are saved, forked and put together with others; entries keep to their bytes and their
// declaration.
#include <algorithm>

#include "core/contract/plugin.h"
#include "plugins/kit/checks.h"
#include "plugins/kit/isolate.h"

namespace strata::kit {
namespace {

constexpr double kTolerance = 1e-9;
constexpr int64_t kLength = 70;  // more than a page
constexpr int64_t kCapacity = 192;

// Collects the outputs of consecutive passes and compares them with the same tokens of the whole.
class Compared {
 public:
  explicit Compared(Values whole, int64_t batch) : whole_(std::move(whole)), batch_(batch) {}

  void add(const Values& y, int64_t begin, int64_t end) {
    const Batch all{batch_, kLength, whole_, {}};
    worst_ = std::max(worst_, difference(y, slice(all, begin, end).x));
  }
  double worst() const { return worst_; }

 private:
  Values whole_;
  int64_t batch_;
  double worst_ = 0;
};

// Passes that end at `ends`; the first ones of more than a token are prefills.
double cut(Bed& bed, const Batch& in, const Values& whole, const std::vector<int64_t>& ends,
           KitState& state) {
  Compared compared(whole, in.batch);
  int64_t begin = state.lengths()[0];
  for (const int64_t end : ends) {
    const Mode mode = end - begin > 1 ? Mode::prefill : Mode::decode;
    at_work("tokens " + std::to_string(begin) + " to " + std::to_string(end));
    compared.add(bed.step(state, mode, slice(in, begin, end)), begin, end);
    begin = end;
  }
  return compared.worst();
}

std::vector<int64_t> steps_from(int64_t begin) {
  std::vector<int64_t> ends;
  if (begin > 0) ends.push_back(begin);
  for (int64_t t = begin + 1; t <= kLength; ++t) ends.push_back(t);
  return ends;
}

std::string described(const KitState& state) {
  std::string text;
  for (const StateSpec& s : state.specs())
    text += (text.empty() ? "" : ", ") + s.name + " " + to_string(s.shape) + " " +
            name_of(s.dtype) + (s.growth.kind == Growth::Kind::fixed ? "" : " per token");
  return text.empty() ? "no state" : text;
}

// Continues from a saved state twice, and elsewhere: the state is all that is carried.
double save_and_fork(Bed& bed, const Batch& in, const Values& whole) {
  const int64_t half = 20;
  KitState state(in.batch, kCapacity);
  double worst = cut(bed, in, whole, {half}, state);
  const KitState saved = state;
  const Batch rest = slice(in, half, kLength);
  Batch other = rest;
  other.x = bed.random_values(int64_t(rest.x.size()), 77);
  const Values first = bed.step(state, Mode::prefill, other);  // another continuation
  state = saved;
  worst = std::max(worst, cut(bed, in, whole, {kLength}, state));
  state = saved;
  worst = std::max(worst, difference(bed.step(state, Mode::prefill, other), first));
  // Row 1 forks from row 0 and goes on as row 0 would.
  state = saved;
  state.fork_row(0, 1);
  Batch twice = rest;
  const size_t n = rest.x.size() / 2;
  std::copy(rest.x.begin(), rest.x.begin() + n, twice.x.begin() + n);
  const Values y = bed.step(state, Mode::prefill, twice);
  const Values row0(y.begin(), y.begin() + n), row1(y.begin() + n, y.end());
  return std::max(worst, difference(row1, row0));
}

// Rows of different lengths decode together as each alone.
double ragged(Bed& bed, const Batch& in, const Values& whole) {
  const int64_t lengths[2] = {5, 66};
  KitState together(2, kCapacity);
  const size_t width = whole.size() / size_t(in.batch * kLength);
  for (int64_t b = 0; b < 2; ++b) {
    KitState alone(1, kCapacity);
    bed.step(alone, Mode::prefill, slice(row_of(in, b), 0, lengths[b]));
    together.take_row(alone, 0, b);
  }
  double worst = 0;
  for (int64_t t = 0; t < 3; ++t) {
    Batch token{2, 1, {}, {}};
    Values expected;
    for (int64_t b = 0; b < 2; ++b) {
      const size_t at = size_t(b * kLength + lengths[b] + t) * width;
      token.x.insert(token.x.end(), in.x.begin() + at, in.x.begin() + at + width);
      expected.insert(expected.end(), whole.begin() + at, whole.begin() + at + width);
    }
    worst = std::max(worst, difference(bed.step(together, Mode::decode, token), expected));
  }
  return worst;
}

// state() and what forward asks for.
std::string undeclared(const std::vector<StateSpec>& declared,
                       const std::vector<StateSpec>& asked) {
  auto missing = [](const std::vector<StateSpec>& a, const std::vector<StateSpec>& b) {
    for (const StateSpec& s : a)
      if (std::none_of(b.begin(), b.end(), [&](const StateSpec& o) {
            return o.name == s.name && o.shape == s.shape && o.dtype == s.dtype &&
                   o.growth == s.growth;
          }))
        return s.name + " " + to_string(s.shape) + " " + name_of(s.dtype);
    return std::string();
  };
  const std::string extra = missing(declared, asked), absent = missing(asked, declared);
  if (!absent.empty()) return "forward asks for " + absent + ", which state() does not declare";
  return extra.empty() ? "" : "state() declares " + extra + ", which forward does not ask for";
}

}  // namespace

Rows check_state(const LayerChoice& c) {
  Bed bed(c, DType::f64);
  const Batch in = bed.random_batch(2, kLength);
  const Values whole = bed.infer(in);
  KitState once(2, kCapacity), stepped(2, kCapacity), from_nothing(2, kCapacity);
  KitState chunked(2, kCapacity);
  Rows rows = {measured("prefill", cut(bed, in, whole, {kLength}, once), kTolerance)};
  const double decode = std::max(cut(bed, in, whole, steps_from(5), stepped),
                                 cut(bed, in, whole, steps_from(0), from_nothing));
  rows.push_back(measured("decode", decode, kTolerance, described(stepped)));
  rows.push_back(measured("chunked prefill", cut(bed, in, whole, {1, 8, 21, 54, kLength}, chunked),
                          kTolerance));
  rows.push_back(measured("state save and fork", save_and_fork(bed, in, whole), kTolerance));
  rows.push_back(measured("ragged batch", ragged(bed, in, whole), kTolerance));
  std::string overrun;
  for (const KitState* s : {&once, &stepped, &chunked})
    if (overrun.empty()) overrun = s->overrun();
  rows.push_back(overrun.empty()
                     ? measured("state bounds", 0, 0)
                     : failed("state bounds", "state '" + overrun + "' is written behind its end"));
  if (c.factory->own_hooks(c.symbol) & kState) {
    const std::string text = undeclared(bed.layer().state(), stepped.specs());
    rows.push_back(text.empty() ? measured("state declared", 0, 0)
                                : failed("state declared", text));
  }
  Bed single(c, DType::f32);
  KitState state(2, kCapacity);
  rows.push_back(
      measured("decode float32", cut(single, in, whole, steps_from(5), state), 2e-4, ""));
  return rows;
}

}  // namespace strata::kit
