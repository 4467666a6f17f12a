#include "plugins/kit/kit_pass.h"

#include <algorithm>
#include <cstring>

#include "core/tensor/device.h"

namespace strata::kit {

constexpr int64_t kGuard = 64;
constexpr unsigned char kGuardByte = 0xab;

KitState::KitState(int64_t rows, int64_t capacity_tokens)
    : rows_(rows),
      pages_per_row_((capacity_tokens + kPageTokens - 1) / kPageTokens),
      lengths_(size_t(rows), 0) {
  for (int64_t b = 0; b < rows; ++b) slots_.push_back(int32_t(rows - 1 - b));
}

// Pages of the rows interleave, last first.
int32_t KitState::page_id(int64_t row, int64_t page) const {
  return int32_t((pages_per_row_ - 1 - page) * rows_ + row);
}

void KitState::prepare(int64_t n) {
  room_ = n;
  for (auto& [name, e] : entries_)
    if (!e.table.empty()) update_table(e);
}

void KitState::update_table(Entry& e) const {
  const Growth& g = e.spec.growth;
  for (int64_t b = 0; b < rows_; ++b)
    for (int64_t p = 0; p < pages_per_row_; ++p) {
      const int64_t first = p * kPageTokens, last = first + kPageTokens - 1, held = lengths_[b];
      const bool behind =
          g.kind == Growth::Kind::window && last <= held - g.window && first >= g.sinks;
      if (behind) std::memset(e.bytes.data() + page_id(b, p) * e.stride, 0xff, size_t(e.unit));
      e.table[b * pages_per_row_ + p] = behind || first >= held + room_ ? -1 : page_id(b, p);
    }
}

void KitState::advance(int64_t n) {
  for (int32_t& length : lengths_) length += int32_t(n);
}

void KitState::fork_row(int64_t from, int64_t to) { take_row(*this, from, to); }

void KitState::take_row(const KitState& other, int64_t from, int64_t to) {
  for (const auto& named : other.entries_) {
    const Entry& theirs = named.second;  // not a binding: clang 14 captures none
    const int64_t pages = theirs.table.empty() ? 0 : pages_per_row_;
    Entry& e = entry(theirs.spec, theirs.unit, pages ? pages * rows_ : rows_, pages ? 0xff : 0);
    auto copy = [&](int64_t source, int64_t target) {
      std::memmove(e.bytes.data() + target * e.stride, theirs.bytes.data() + source * e.stride,
                   size_t(e.unit));
    };
    if (pages == 0) copy(other.slots_[from], slots_[to]);
    for (int64_t p = 0; p < std::min(pages, other.pages_per_row_); ++p)
      copy(other.page_id(from, p), page_id(to, p));
    if (pages) e.table.resize(size_t(rows_ * pages_per_row_));
  }
  lengths_[to] = other.lengths_[from];
}

KitState::Entry& KitState::entry(const StateSpec& spec, int64_t unit, int64_t count,
                                 unsigned char fill) {
  const auto [it, fresh] = entries_.try_emplace(spec.name);
  Entry& e = it->second;
  if (!fresh) {
    if (!(e.spec.shape == spec.shape) || e.spec.dtype != spec.dtype ||
        !(e.spec.growth == spec.growth))
      throw Error("state '" + spec.name + "' was " + to_string(e.spec.shape) + ", now it is " +
                  to_string(spec.shape) + "; a state has one shape, dtype and growth");
    return e;
  }
  e.spec = spec;
  e.unit = unit;
  e.stride = (unit + 63) / 64 * 64 + kGuard;
  e.bytes.assign(size_t(count * e.stride), kGuardByte);
  for (int64_t i = 0; i < count; ++i)
    std::memset(e.bytes.data() + i * e.stride, fill, size_t(unit));
  return e;
}

StateRef KitState::fixed(const StateSpec& spec) {
  Entry& e = entry(spec, spec.shape.numel() * int64_t(size_of(spec.dtype)), rows_, 0);
  return {e.bytes.data(), e.stride, slots_.data()};
}

PagesRef KitState::paged(const StateSpec& spec) {
  const int64_t token = spec.shape.numel() * int64_t(size_of(spec.dtype));
  Entry& e = entry(spec, token * kPageTokens, rows_ * pages_per_row_, 0xff);
  e.table.resize(size_t(rows_ * pages_per_row_));
  update_table(e);
  return {e.bytes.data(), e.stride, token, e.table.data(), pages_per_row_, lengths_.data()};
}

std::vector<StateSpec> KitState::specs() const {
  std::vector<StateSpec> specs;
  for (const auto& [name, e] : entries_) specs.push_back(e.spec);
  return specs;
}

std::string KitState::overrun() const {
  for (const auto& [name, e] : entries_)
    for (size_t unit = 0; unit < e.bytes.size(); unit += size_t(e.stride))
      for (size_t i = unit + size_t(e.unit); i < unit + size_t(e.stride); ++i)
        if (e.bytes[i] != kGuardByte) return name;
  return "";
}

// --------------------------------------------------------------------------------------- KitPass
StateRef KitPass::state(std::string_view name, const Shape& per_sequence, DType dtype) {
  static const int32_t kNoSlot = 0;
  if (mode_ == Mode::train) return {};
  StateRef ref = state_->fixed({std::string(name), per_sequence, dtype, Growth::fixed()});
  if (cx_.planning()) return {nullptr, 0, &kNoSlot};
  ref.base = mirror(ref.base, state_->bytes_of(std::string(name)), true);
  ref.slots = static_cast<const int32_t*>(
      mirror(ref.slots, size_t(state_->rows()) * sizeof(int32_t), false));
  return ref;
}

PagesRef KitPass::pages(std::string_view name, const Shape& per_token, DType dtype, Growth growth) {
  static const int32_t kNoPage = 0;
  if (mode_ == Mode::train) return {};
  PagesRef ref = state_->paged({std::string(name), per_token, dtype, growth});
  if (cx_.planning()) return {nullptr, 0, 0, &kNoPage, 1, &kNoPage};
  const size_t rows = size_t(state_->rows()) * sizeof(int32_t);
  ref.base = mirror(ref.base, state_->bytes_of(std::string(name)), true);
  ref.table = static_cast<const int32_t*>(mirror(ref.table, rows * size_t(ref.table_pitch), false));
  ref.lengths = static_cast<const int32_t*>(mirror(ref.lengths, rows, false));
  return ref;
}

void* KitPass::mirror(const void* host, size_t bytes, bool written) {
  const Device device = cx_.device();
  if (device.kind == DeviceKind::cpu) return const_cast<void*>(host);
  mirrors_.push_back({written ? const_cast<void*>(host) : nullptr, Block(bytes, "state", device)});
  driver_of(device).upload(mirrors_.back().memory.data(), host, bytes);
  return mirrors_.back().memory.data();
}

void KitPass::bring_back() {
  for (const Mirror& m : mirrors_)
    if (m.host) driver_of(cx_.device()).download(m.host, m.memory.data(), m.memory.bytes());
}

std::string KitPass::unique(std::string_view base) {
  const int n = uses_[std::string(base)]++;
  return n == 0 ? std::string(base) : std::string(base) + "." + std::to_string(n);
}

void KitPass::publish(std::string_view name, Tensor value) {
  published_[std::string(name)] = value;
}

Tensor KitPass::fetch(std::string_view name) {
  const auto it = published_.find(name);
  if (it == published_.end())
    throw Error("no earlier block publishes '" + std::string(name) +
                "'; the kit offers 'embed' alone");
  return it->second;
}

void KitPass::save(std::string_view name, Tensor value) { saved_[std::string(name)] = value; }

Tensor KitPass::saved(std::string_view name) const {
  const auto it = saved_.find(name);
  if (it == saved_.end()) throw Error("forward saved nothing named '" + std::string(name) + "'");
  return it->second;
}

}  // namespace strata::kit
