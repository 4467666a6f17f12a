// What running sequences keep: a pool of state slots and a pool of pages. A sequence is opened,
// appended to, forked (slots copied, pages shared until written), snapshotted, rolled back, closed.
#pragma once

#include <map>
#include <span>
#include <vector>

#include "core/model/block_pass.h"
#include "core/tensor/memory.h"

namespace strata {

// Units of one size out of one reservation, counted by reference. Memory is touched on first use.
class STRATA_API Pool {
 public:
  Pool(std::string name, int64_t unit_bytes, int64_t capacity, Device device);
  // A unit with one reference. Throws Error (resource) when all are in use.
  int32_t take();
  void share(int32_t unit) { ++references_[unit]; }
  void drop(int32_t unit);
  void clear(int32_t unit);
  void copy(int32_t to, int32_t from);
  int32_t references(int32_t unit) const { return references_[unit]; }
  bool shared(int32_t unit) const { return references_[unit] > 1; }
  int64_t free_units() const { return capacity_ - in_use_; }
  int64_t bytes_in_use() const { return in_use_ * unit_bytes_; }
  int64_t peak_bytes() const { return peak_ * unit_bytes_; }
  void* unit(int32_t i) const { return static_cast<char*>(memory_.data()) + i * unit_bytes_; }
  void* base() const { return memory_.data(); }
  int64_t unit_bytes() const { return unit_bytes_; }

 private:
  std::string name_;
  int64_t unit_bytes_, capacity_, in_use_ = 0, peak_ = 0;
  Block memory_;
  std::vector<int32_t> references_, free_;
};

struct CacheLimits {
  int64_t sequences = 64;    // slots, snapshots included
  int64_t tokens = 1 << 20;  // over all sequences, in pages of 64
  // Tokens between automatic snapshots; 0: none. When no slot is free, the sequence's oldest
  // automatic snapshot makes room; a sequence without one goes on without.
  int64_t snapshot_interval = 0;
};

class STRATA_API Cache {
 public:
  Cache(CacheLayout layout, CacheLimits limits, Device device = {});

  // A new, empty sequence; its state is zero.
  int open();
  // A copy that continues on its own: the slot is copied, pages are shared until one side writes.
  int fork(int sequence);
  // Gives everything back, snapshots of the sequence included.
  void close(int sequence);
  // Keeps the present state of the sequence; returns the snapshot's number.
  int snapshot(int sequence);
  // Returns the sequence to the snapshot, which stays. Later snapshots of it are dropped.
  void rollback(int sequence, int snapshot);
  // Gives one snapshot's slot and pages back.
  void forget(int sequence, int snapshot);
  // Goes back to the latest point at or before `length` that can be restored exactly: any length
  // without recurrent state and windows, else a snapshot (or the empty start). Returns that length.
  int64_t truncate(int sequence, int64_t length);
  int64_t length(int sequence) const;

  // Makes room for n_tokens more in each sequence and describes them for the kernels; valid until
  // the next begin. Nothing is changed when there is no room: Error (resource).
  const CacheBatch& begin(std::span<const int> sequences, int64_t n_tokens);
  // The forward has run: the sequences are n_tokens longer.
  void end();

  const CacheLayout& layout() const { return layout_; }
  int64_t bytes_in_use() const;
  int64_t state_bytes_in_use() const { return slots_.bytes_in_use(); }
  int64_t page_bytes_in_use() const;
  int64_t sequences() const { return int64_t(sequences_.size()); }

 private:
  struct Sequence {
    int64_t length = 0;
    int32_t slot = -1;
    std::vector<std::vector<int32_t>> tables;  // per page group
    std::map<int, Sequence> snapshots;
    bool automatic = false;  // of a snapshot
  };

  Sequence& at(int sequence);
  const Sequence& at(int sequence) const;
  Sequence copy(const Sequence& s);
  void drop(Sequence& s);
  void reserve(Sequence& s, int64_t n_tokens);
  void leave_window(Sequence& s);
  void put_on_device();
  void snapshot_by_interval(int sequence);

  CacheLayout layout_;
  CacheLimits limits_;
  Device device_;
  Pool slots_;
  std::vector<Pool> pages_;
  std::map<int, Sequence> sequences_;
  int next_sequence_ = 0, next_snapshot_ = 0;

  CacheBatch batch_;
  std::vector<int> members_;
  int64_t appended_ = 0;
  std::vector<int32_t> slot_ids_, lengths_;
  std::vector<std::vector<int32_t>> tables_;
  Block described_;  // slots, lengths and tables on a device
  std::vector<char> staged_;
};

}  // namespace strata
