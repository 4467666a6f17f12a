#include "core/model/cache.h"

#include <algorithm>
#include <cstring>

#include "core/tensor/device.h"

namespace strata {

// ------------------------------------------------------------------------------------------ pool
Pool::Pool(std::string name, int64_t unit_bytes, int64_t capacity, Device device)
    : name_(std::move(name)),
      unit_bytes_(unit_bytes),
      capacity_(capacity),
      memory_(size_t(unit_bytes * capacity), name_ + " pool", device),
      references_(size_t(capacity), 0) {
  free_.reserve(size_t(capacity));
  for (int64_t i = capacity; i-- > 0;) free_.push_back(int32_t(i));
}

int32_t Pool::take() {
  if (free_.empty())
    throw Error("the " + name_ + " pool is full: " + std::to_string(capacity_) + " units of " +
                    std::to_string(unit_bytes_) +
                    " bytes are in use; close sequences or raise its limit",
                ErrorKind::resource);
  const int32_t unit = free_.back();
  free_.pop_back();
  references_[unit] = 1;
  peak_ = std::max(peak_, ++in_use_);
  return unit;
}

void Pool::clear(int32_t i) {
  if (unit_bytes_) driver_of(memory_.device()).clear(unit(i), size_t(unit_bytes_));
}

void Pool::copy(int32_t to, int32_t from) {
  if (unit_bytes_) driver_of(memory_.device()).copy(unit(to), unit(from), size_t(unit_bytes_));
}

void Pool::drop(int32_t unit) {
  if (--references_[unit] > 0) return;
  free_.push_back(unit);
  --in_use_;
}

// ----------------------------------------------------------------------------------------- cache
static int64_t pages_for(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

Cache::Cache(CacheLayout layout, CacheLimits limits, Device device)
    : layout_(std::move(layout)),
      limits_(limits),
      device_(device),
      slots_("state", layout_.slot_bytes, limits.sequences, device) {
  for (const PageGroup& g : layout_.groups)
    pages_.emplace_back("page", g.page_bytes, pages_for(limits.tokens) + limits.sequences, device);
  tables_.resize(layout_.groups.size());
  batch_.groups.resize(layout_.groups.size());
}

Cache::Sequence& Cache::at(int sequence) {
  const auto it = sequences_.find(sequence);
  if (it == sequences_.end()) throw Error("sequence " + std::to_string(sequence) + " is not open");
  return it->second;
}

const Cache::Sequence& Cache::at(int sequence) const {
  return const_cast<Cache*>(this)->at(sequence);
}

int Cache::open() {
  Sequence s;
  s.slot = slots_.take();
  slots_.clear(s.slot);
  s.tables.resize(layout_.groups.size());
  sequences_.emplace(next_sequence_, std::move(s));
  return next_sequence_++;
}

Cache::Sequence Cache::copy(const Sequence& s) {
  Sequence c;
  c.length = s.length;
  c.slot = slots_.take();
  slots_.copy(c.slot, s.slot);
  c.tables = s.tables;
  for (size_t g = 0; g < c.tables.size(); ++g)
    for (int32_t page : c.tables[g])
      if (page >= 0) pages_[g].share(page);
  return c;
}

void Cache::drop(Sequence& s) {
  for (auto& [id, snapshot] : s.snapshots) drop(snapshot);
  s.snapshots.clear();
  slots_.drop(s.slot);
  for (size_t g = 0; g < s.tables.size(); ++g)
    for (int32_t page : s.tables[g])
      if (page >= 0) pages_[g].drop(page);
}

int Cache::fork(int sequence) {
  Sequence c = copy(at(sequence));
  sequences_.emplace(next_sequence_, std::move(c));
  return next_sequence_++;
}

void Cache::close(int sequence) {
  drop(at(sequence));
  sequences_.erase(sequence);
}

int Cache::snapshot(int sequence) {
  Sequence& s = at(sequence);
  Sequence c = copy(s);
  s.snapshots.emplace(next_snapshot_, std::move(c));
  return next_snapshot_++;
}

void Cache::forget(int sequence, int snapshot) {
  Sequence& s = at(sequence);
  const auto it = s.snapshots.find(snapshot);
  if (it == s.snapshots.end())
    throw Error("sequence " + std::to_string(sequence) + " has no snapshot " +
                std::to_string(snapshot));
  drop(it->second);
  s.snapshots.erase(it);
}

void Cache::rollback(int sequence, int snapshot) {
  Sequence& s = at(sequence);
  const auto it = s.snapshots.find(snapshot);
  if (it == s.snapshots.end())
    throw Error("sequence " + std::to_string(sequence) + " has no snapshot " +
                std::to_string(snapshot));
  // The old slot goes first, so that a full pool can still roll back.
  std::map<int, Sequence> kept = std::move(s.snapshots);
  s.snapshots.clear();
  drop(s);
  for (auto later = kept.upper_bound(snapshot); later != kept.end();) {
    drop(later->second);
    later = kept.erase(later);
  }
  s = copy(kept.at(snapshot));
  s.snapshots = std::move(kept);
}

int64_t Cache::truncate(int sequence, int64_t length) {
  Sequence& s = at(sequence);
  if (length >= s.length) return s.length;
  bool exact = layout_.slot_bytes == 0;
  for (const PageGroup& g : layout_.groups) exact &= g.growth.kind == Growth::Kind::per_token;
  if (exact) {
    for (size_t g = 0; g < s.tables.size(); ++g)
      while (int64_t(s.tables[g].size()) > pages_for(length)) {
        pages_[g].drop(s.tables[g].back());
        s.tables[g].pop_back();
      }
    s.length = length;
    return length;
  }
  int best = -1;
  for (const auto& [id, snapshot] : s.snapshots)
    if (snapshot.length <= length) best = id;
  if (best >= 0) {
    rollback(sequence, best);
    return at(sequence).length;
  }
  drop(s);
  Sequence fresh;
  fresh.slot = slots_.take();
  slots_.clear(fresh.slot);
  fresh.tables.resize(layout_.groups.size());
  s = std::move(fresh);
  return 0;
}

int64_t Cache::length(int sequence) const { return at(sequence).length; }

// Pages for n more tokens; the page that is written next must be ours alone.
void Cache::reserve(Sequence& s, int64_t n_tokens) {
  for (size_t g = 0; g < s.tables.size(); ++g) {
    auto& table = s.tables[g];
    // A call that failed may have left pages behind the one that is written next.
    for (size_t p = size_t(s.length / kPageTokens); p < table.size(); ++p) {
      if (table[p] < 0 || !pages_[g].shared(table[p])) continue;
      const int32_t own = pages_[g].take();
      pages_[g].copy(own, table[p]);
      pages_[g].drop(table[p]);
      table[p] = own;
    }
    while (int64_t(table.size()) < pages_for(s.length + n_tokens))
      table.push_back(pages_[g].take());
  }
}

// Tables grow in steps of 1024 tokens on a device, where a recorded decode step knows their width.
constexpr int64_t kTableStep = 16;

const CacheBatch& Cache::begin(std::span<const int> sequences, int64_t n_tokens) {
  std::vector<int> sorted(sequences.begin(), sequences.end());
  std::sort(sorted.begin(), sorted.end());
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end())
    throw Error("a batch names one sequence twice; fork it first");
  for (size_t g = 0; g < pages_.size(); ++g) {
    int64_t needed = 0;
    std::map<int32_t, int> writers;  // of shared pages: the last holder keeps the page
    for (int id : sequences) {
      const Sequence& s = at(id);
      const auto& table = s.tables[g];
      needed += std::max<int64_t>(0, pages_for(s.length + n_tokens) - int64_t(table.size()));
      for (size_t p = size_t(s.length / kPageTokens); p < table.size(); ++p)
        if (table[p] >= 0 && pages_[g].references(table[p]) > ++writers[table[p]]) ++needed;
    }
    if (needed > pages_[g].free_units())
      throw Error("the page pool has " + std::to_string(pages_[g].free_units()) +
                      " free pages of 64 tokens, this call needs " + std::to_string(needed) +
                      "; close sequences or raise the cache's token limit",
                  ErrorKind::resource);
  }
  members_.assign(sequences.begin(), sequences.end());
  appended_ = n_tokens;
  slot_ids_.clear();
  lengths_.clear();
  for (int id : members_) {
    Sequence& s = at(id);
    reserve(s, n_tokens);
    slot_ids_.push_back(s.slot);
    lengths_.push_back(int32_t(s.length));
  }
  const int64_t batch = int64_t(members_.size());
  batch_.layout = &layout_;  // here: a cache may have moved
  batch_.slots_base = slots_.base();
  batch_.slots = view_of(slot_ids_.data(), {batch}, DType::i32);
  batch_.lengths = view_of(lengths_.data(), {batch}, DType::i32);
  for (size_t g = 0; g < pages_.size(); ++g) {
    int64_t width = 1;
    for (int id : members_) width = std::max(width, int64_t(at(id).tables[g].size()));
    if (device_.kind != DeviceKind::cpu) width = (width + kTableStep - 1) / kTableStep * kTableStep;
    tables_[g].assign(size_t(batch * width), -1);
    for (int64_t b = 0; b < batch; ++b)
      std::copy(at(members_[b]).tables[g].begin(), at(members_[b]).tables[g].end(),
                tables_[g].begin() + b * width);
    batch_.groups[g] = {pages_[g].base(), view_of(tables_[g].data(), {batch, width}, DType::i32)};
  }
  if (device_.kind != DeviceKind::cpu) put_on_device();
  return batch_;
}

// Moves what describes the batch to the device, where the kernels read it.
void Cache::put_on_device() {
  std::vector<Tensor*> parts{&batch_.slots, &batch_.lengths};
  for (CacheBatch::Group& group : batch_.groups) parts.push_back(&group.table);
  size_t bytes = 0;
  for (const Tensor* t : parts) bytes += t->bytes();
  if (bytes > described_.bytes()) described_ = Block(2 * bytes, "tables of the cache", device_);
  staged_.resize(bytes);
  size_t at = 0;
  for (Tensor* t : parts) {
    std::memcpy(staged_.data() + at, t->data, t->bytes());
    *t = view_of(static_cast<char*>(described_.data()) + at, t->shape, t->dtype, device_);
    at += t->bytes();
  }
  driver_of(device_).upload(described_.data(), staged_.data(), bytes);
}

void Cache::leave_window(Sequence& s) {
  for (size_t g = 0; g < s.tables.size(); ++g) {
    const Growth& growth = layout_.groups[g].growth;
    if (growth.kind != Growth::Kind::window) continue;
    // The next query sees keys from length - window + 1 on, and the sinks at the start.
    const int64_t gone = (s.length - growth.window + 1) / kPageTokens;
    for (int64_t p = pages_for(growth.sinks); p < gone; ++p)
      if (s.tables[g][p] >= 0) {
        pages_[g].drop(s.tables[g][p]);
        s.tables[g][p] = -1;
      }
  }
}

void Cache::snapshot_by_interval(int sequence) {
  Sequence& s = at(sequence);
  if (slots_.free_units() == 0)
    for (const auto& [id, kept] : s.snapshots)
      if (kept.automatic) {
        forget(sequence, id);
        break;
      }
  if (slots_.free_units() == 0) return;
  s.snapshots.at(snapshot(sequence)).automatic = true;
}

void Cache::end() {
  for (int id : members_) {
    Sequence& s = at(id);
    const int64_t before = s.length;
    s.length += appended_;
    leave_window(s);
    const int64_t interval = limits_.snapshot_interval;
    if (interval > 0 && before / interval != s.length / interval) snapshot_by_interval(id);
  }
  members_.clear();
}

int64_t Cache::page_bytes_in_use() const {
  int64_t bytes = 0;
  for (const Pool& p : pages_) bytes += p.bytes_in_use();
  return bytes;
}

int64_t Cache::bytes_in_use() const { return state_bytes_in_use() + page_bytes_in_use(); }

}  // namespace strata
