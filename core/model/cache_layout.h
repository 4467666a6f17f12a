// What one sequence of a model keeps, laid out in bytes: a slot of fixed state (conv tails and scan
// states side by side, in the order the stack reads them) and pages of 64 tokens (keys, values).
#pragma once

#include <string>
#include <vector>

#include "core/contract/layer.h"

namespace strata {

struct CacheEntry {
  int site;  // the call site (block or branch member) that owns it
  StateSpec spec;
  int64_t offset;           // within the slot, or within a page of its group
  int64_t token_bytes = 0;  // of per-token entries
  int group = -1;           // page group of per-token entries
};

// Entries that grow alike share pages: all per-token ones, and all of one window.
struct PageGroup {
  Growth growth;
  int64_t page_bytes = 0;
};

struct STRATA_API CacheLayout {
  int64_t slot_bytes = 0;
  std::vector<CacheEntry> entries;
  std::vector<PageGroup> groups;

  // Declares an entry; the same (site, name) again must agree. Returns its index.
  int add(int site, const StateSpec& spec);
  // Declares an entry that lies in the pages of `owner`, which an earlier block published. Throws
  // Error when they differ in shape, dtype or growth.
  void share(int site, const StateSpec& spec, const std::string& published,
             const CacheEntry& owner);
  // The entry of a site by name, or nullptr.
  const CacheEntry* find(int site, std::string_view name) const;
  int64_t token_bytes() const;  // of all groups together
};

}  // namespace strata
