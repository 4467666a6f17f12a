#include "core/model/cache_layout.h"

namespace strata {

static int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

const CacheEntry* CacheLayout::find(int site, std::string_view name) const {
  for (const CacheEntry& e : entries)
    if (e.site == site && e.spec.name == name) return &e;
  return nullptr;
}

int CacheLayout::add(int site, const StateSpec& spec) {
  if (const CacheEntry* e = find(site, spec.name)) {
    if (!(e->spec.shape == spec.shape) || e->spec.dtype != spec.dtype)
      throw Error("state '" + spec.name + "' is declared as " + to_string(e->spec.shape) +
                  " and as " + to_string(spec.shape));
    return int(e - entries.data());
  }
  CacheEntry entry{site, spec, 0, 0, -1};
  const int64_t bytes = spec.shape.numel() * int64_t(size_of(spec.dtype));
  if (spec.growth.kind == Growth::Kind::fixed) {
    entry.offset = slot_bytes;
    slot_bytes += aligned(bytes);
  } else {
    size_t g = 0;
    while (g < groups.size() && !(groups[g].growth == spec.growth)) ++g;
    if (g == groups.size()) groups.push_back({spec.growth, 0});
    entry.group = int(g);
    entry.token_bytes = bytes;
    entry.offset = groups[g].page_bytes;
    groups[g].page_bytes += aligned(bytes * kPageTokens);
  }
  entries.push_back(entry);
  return int(entries.size()) - 1;
}

void CacheLayout::share(int site, const StateSpec& spec, const std::string& published,
                        const CacheEntry& owner) {
  if (!(owner.spec.shape == spec.shape) || owner.spec.dtype != spec.dtype ||
      !(owner.spec.growth == spec.growth))
    throw Error("state '" + spec.name + "' is the same as '" + published + "', " +
                to_string(owner.spec.shape) + " " + name_of(owner.spec.dtype) + ", but asks for " +
                to_string(spec.shape) + " " + name_of(spec.dtype) +
                "; shape, dtype and growth must be one");
  if (find(site, spec.name)) return;
  CacheEntry entry = owner;
  entry.site = site;
  entry.spec = spec;
  entry.spec.same_as = published;
  entries.push_back(entry);
}

int64_t CacheLayout::token_bytes() const {
  int64_t bytes = 0;
  for (const CacheEntry& e : entries)
    if (e.spec.same_as.empty()) bytes += e.token_bytes;
  return bytes;
}

}  // namespace strata
