// A Pass of the kit's own, with dense states instead of the host's cache, so that the contract is
// tested without it: permuted slots and pages, guard bytes after every entry, not-a-number in every
// page byte that nobody wrote.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/contract/layer.h"
#include "core/tensor/memory.h"

namespace strata::kit {

// What the rows of a batch carry from pass to pass. Copying it is a snapshot.
class KitState {
 public:
  KitState(int64_t rows, int64_t capacity_tokens);

  // Makes room for n more tokens per row, and lets go of pages behind their window.
  void prepare(int64_t n);
  // Counts n tokens as held.
  void advance(int64_t n);
  // Row `to` becomes a copy of row `from`.
  void fork_row(int64_t from, int64_t to);
  // Makes row `to` a copy of row `from` of another batch with the same entries.
  void take_row(const KitState& other, int64_t from, int64_t to);

  StateRef fixed(const StateSpec& spec);
  PagesRef paged(const StateSpec& spec);
  size_t bytes_of(const std::string& name) const { return entries_.at(name).bytes.size(); }

  int64_t rows() const { return rows_; }
  const std::vector<int32_t>& lengths() const { return lengths_; }
  std::vector<StateSpec> specs() const;
  // The first entry that wrote behind its end, or "".
  std::string overrun() const;

 private:
  struct Entry {
    StateSpec spec;
    int64_t unit = 0;    // bytes of one slot's or page's content
    int64_t stride = 0;  // with the guard behind it
    std::vector<unsigned char> bytes;
    std::vector<int32_t> table;  // pages: (rows, pages per row)
  };
  Entry& entry(const StateSpec& spec, int64_t unit, int64_t count, unsigned char fill);
  void update_table(Entry& e) const;
  int32_t page_id(int64_t row, int64_t page) const;

  int64_t rows_, pages_per_row_, room_ = 0;
  std::vector<int32_t> slots_, lengths_;
  std::map<std::string, Entry> entries_;
};

class KitPass final : public Pass {
 public:
  // `state` may be null: training.
  KitPass(Context& cx, Mode mode, KitState* state) : cx_(cx), mode_(mode), state_(state) {}

  Mode mode() const override { return mode_; }
  Tensor positions() const override { return positions_; }
  Tensor seq_idx() const override { return seq_idx_; }
  StateRef state(std::string_view name, const Shape& per_sequence, DType dtype) override;
  PagesRef pages(std::string_view name, const Shape& per_token, DType dtype,
                 Growth growth) override;
  std::string unique(std::string_view base) override;
  void publish(std::string_view name, Tensor value) override;
  Tensor fetch(std::string_view name) override;
  void save(std::string_view name, Tensor value) override;
  Tensor saved(std::string_view name) const override;
  Random random() const override { return Random(1, stream_of("kit")); }

  // The state as the kernels left it on a device.
  void bring_back();

  void set_places(Tensor positions, Tensor seq_idx) {
    positions_ = positions;
    seq_idx_ = seq_idx;
  }

 private:
  Context& cx_;
  Mode mode_;
  KitState* state_;
  Tensor positions_, seq_idx_;
  // A copy on the device of what lies on the host.
  struct Mirror {
    void* host;
    Block memory;
  };
  void* mirror(const void* host, size_t bytes, bool written);
  std::vector<Mirror> mirrors_;
  std::map<std::string, int, std::less<>> uses_;
  std::map<std::string, Tensor, std::less<>> published_, saved_;
};

}  // namespace strata::kit
