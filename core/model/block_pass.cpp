#include "core/model/block_pass.h"

#include <algorithm>

#include "core/ops/tally.h"
#include "core/tensor/device.h"

namespace strata {

BlockPass::BlockPass(Context& cx, CallState& call, int site, std::string place)
    : cx_(cx), call_(call), site_(site), place_(std::move(place)) {}

const CacheEntry& BlockPass::entry(const StateSpec& spec) const {
  const CacheEntry* e = call_.cache->layout->find(site_, spec.name);
  if (!e)
    throw Error(place_ + ": state '" + spec.name + "' was not declared when the model was planned");
  if (!(e->spec.shape == spec.shape) || e->spec.dtype != spec.dtype)
    throw Error(place_ + ": state '" + spec.name + "' is " + to_string(e->spec.shape) +
                ", forward asks for " + to_string(spec.shape));
  return *e;
}

StateRef BlockPass::state(std::string_view name, const Shape& per_sequence, DType dtype) {
  if (call_.mode == Mode::train) return {};
  const StateSpec spec{std::string(name), per_sequence, dtype, Growth::fixed()};
  static const int32_t kNoSlot = 0;
  if (call_.declare) {
    call_.declare->add(site_, spec);
    return {nullptr, 0, &kNoSlot};
  }
  const CacheBatch& c = *call_.cache;
  return {static_cast<char*>(c.slots_base) + entry(spec).offset, c.layout->slot_bytes,
          c.slots.ptr<int32_t>()};
}

PagesRef BlockPass::pages(std::string_view name, const Shape& per_token, DType dtype,
                          Growth growth) {
  if (call_.mode == Mode::train) return {};
  const StateSpec spec{std::string(name), per_token, dtype, growth};
  static const int32_t kNoPage = 0;
  if (call_.declare) {
    if (const auto shared = same_as_.find(name); shared != same_as_.end())
      call_.declare->share(site_, spec, shared->second, call_.published_pages.at(shared->second));
    else
      call_.declare->add(site_, spec);
    return {nullptr, 0, 0, &kNoPage, 1, &kNoPage};
  }
  const CacheBatch& c = *call_.cache;
  const CacheEntry& e = entry(spec);
  const CacheBatch::Group& group = c.groups[e.group];
  return {static_cast<char*>(group.pages) + e.offset,
          c.layout->groups[e.group].page_bytes,
          e.token_bytes,
          group.table.ptr<int32_t>(),
          group.table.pitch,
          c.lengths.ptr<int32_t>()};
}

std::string BlockPass::unique(std::string_view base) {
  const int n = uses_[std::string(base)]++;
  return n == 0 ? std::string(base) : std::string(base) + "." + std::to_string(n);
}

void BlockPass::publish(std::string_view name, Tensor value) {
  std::vector<CallState::Published>& all = call_.published[std::string(name)];
  for (const CallState::Published& p : all)
    if (p.site == site_) {  // computed again for the backward of its block
      cx_.share_grad(value, p.value);
      return;
    }
  // Later blocks record against it now, even where this block is recorded only later.
  const bool before = cx_.set_recording(cx_.recording() || call_.recomputes);
  if (call_.recomputes) value = cx_.track(value);
  if (cx_.recording()) cx_.bind_grad(value, cx_.alloc(value.shape, value.dtype));
  cx_.set_recording(before);
  all.push_back({site_, value, call_.stage});
  ++call_.publications;
}

Tensor BlockPass::fetch(std::string_view name) {
  if (call_.fetched) call_.fetched->insert(std::string(name));
  const auto it = call_.published.find(name);
  const CallState::Published* found = nullptr;
  if (it != call_.published.end())
    for (const CallState::Published& p : it->second)
      if (p.site < site_) found = &p;
  if (found && found->stage != call_.stage)
    throw Error(place_ + ": '" + std::string(name) + "' is published in pipeline stage " +
                std::to_string(found->stage) + " and read in stage " + std::to_string(call_.stage) +
                "; only the stream crosses '|', move it");
  if (found) return found->value;
  std::vector<std::string> known;
  for (const auto& [n, values] : call_.published) known.push_back(n);
  const std::string near = nearest(std::string(name), known);
  throw Error(place_ + ": no earlier block publishes '" + std::string(name) + "'" +
              (near.empty() ? "" : "; the nearest is '" + near + "'"));
}

// The layout is settled in planning; a running pass finds the shared entry by its own name.
void BlockPass::publish_pages(std::string_view published, std::string_view entry) {
  if (!call_.declare) return;
  const CacheEntry* e = call_.declare->find(site_, entry);
  if (!e || e->group < 0)
    throw Error(place_ + ": publishes the pages '" + std::string(entry) +
                "', but asked for no per-token state of that name before");
  call_.published_pages.emplace(std::string(published), *e);
}

void BlockPass::same_as(std::string_view entry, std::string_view published) {
  if (!call_.declare) return;
  if (!call_.published_pages.contains(published))
    throw Error(place_ + ": no earlier block publishes pages as '" + std::string(published) + "'");
  same_as_[std::string(entry)] = published;
}

void BlockPass::save(std::string_view name, Tensor value) {
  if (!saved_.emplace(std::string(name), value).second)
    throw Error(place_ + ": '" + std::string(name) + "' is saved twice in one forward");
}

Tensor BlockPass::saved(std::string_view name) const {
  const auto it = saved_.find(name);
  if (it == saved_.end())
    throw Error(place_ + ": forward saved nothing named '" + std::string(name) + "'");
  return it->second;
}

void take_notes(Context& cx, CallState& call) {
  if (call.notes) {
    for (const Context::AuxLoss& loss : cx.aux_losses())
      tally(cx, loss.value, call.notes->sum(Notes::aux), loss.weight);
    for (const Context::Count& count : cx.counts())
      tally(cx, count.values,
            call.notes->count(count.place, count.name, count.values.numel(), cx.planning()));
  }
  cx.drop_notes({});
}

Random BlockPass::random() const {
  call_.draws = true;
  return Random(call_.seed, stream_of(place_), call_.step << 32);
}

}  // namespace strata
