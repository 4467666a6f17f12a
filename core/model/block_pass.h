// The Pass that the executor hands to a layer: one per call site and forward call.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/contract/layer.h"
#include "core/model/cache_layout.h"
#include "core/model/notes.h"

namespace strata {

// The sequences of one prefill or decode call, as the kernels see them.
struct CacheBatch {
  struct Group {
    void* pages = nullptr;  // of the pool
    Tensor table;           // (batch, max_pages) i32, -1: left the window
  };
  const CacheLayout* layout = nullptr;
  void* slots_base = nullptr;
  Tensor slots;    // (batch,) i32: the slot of each row
  Tensor lengths;  // (batch,) i32: tokens held before this call
  std::vector<Group> groups;
};

// What all call sites of one forward call share.
struct CallState {
  Mode mode = Mode::train;
  Tensor positions, seq_idx;          // (batch, seq_len) i32; seq_idx may be absent
  const CacheBatch* cache = nullptr;  // prefill and decode
  CacheLayout* declare = nullptr;     // planning: entries are added here instead
  uint64_t seed = 0, step = 0;
  struct Published {
    int site;
    Tensor value;
    int stage;
  };
  // By name, in the order of the walk: a block sees the last one before it.
  std::map<std::string, std::vector<Published>, std::less<>> published;
  int publications = 0;
  std::map<std::string, CacheEntry, std::less<>> published_pages;  // planning
  std::set<std::string>* fetched = nullptr;  // planning: names that were asked for
  int stage = 0;                             // of the block that runs: how many '|' stand before it
  bool draws = false;                        // a layer asked for random numbers
  bool recomputes = false;  // unrecorded now, recorded again for the block's backward
  Notes* notes = nullptr;   // training: where losses and counts of layers go
};

// Adds what `cx` noted since the last time to the notes of `call`: before a block's activations are
// released.
void take_notes(Context& cx, CallState& call);

class STRATA_API BlockPass final : public Pass {
 public:
  BlockPass(Context& cx, CallState& call, int site, std::string place);

  Mode mode() const override { return call_.mode; }
  Tensor positions() const override { return call_.positions; }
  Tensor seq_idx() const override { return call_.seq_idx; }
  StateRef state(std::string_view name, const Shape& per_sequence, DType dtype) override;
  PagesRef pages(std::string_view name, const Shape& per_token, DType dtype,
                 Growth growth) override;
  std::string unique(std::string_view base) override;
  void publish(std::string_view name, Tensor value) override;
  Tensor fetch(std::string_view name) override;
  void publish_pages(std::string_view published, std::string_view entry) override;
  void same_as(std::string_view entry, std::string_view published) override;
  void save(std::string_view name, Tensor value) override;
  Tensor saved(std::string_view name) const override;
  Random random() const override;

 private:
  const CacheEntry& entry(const StateSpec& spec) const;

  Context& cx_;
  CallState& call_;
  int site_;
  std::string place_;
  std::map<std::string, int, std::less<>> uses_;
  std::map<std::string, Tensor, std::less<>> saved_;
  std::map<std::string, std::string, std::less<>> same_as_;
};

}  // namespace strata
