#include "experiments/evaluate/golden_cache.h"

#include <algorithm>
#include "core/tensor/device.h"

namespace strata::golden {

namespace {

// One element of a cache entry as a double.
double element(const void* base, int64_t index, DType dtype) {
  if (dtype == DType::f64) return static_cast<const double*>(base)[index];
  if (dtype == DType::f32) return static_cast<const float*>(base)[index];
  throw Error(std::string("a golden check cannot read a cache of ") + name_of(dtype));
}

// The stored names, and those that layers and operations give to the same states.
bool is_named(const std::string& ours, const std::string& what) {
  if (what == "conv") return ours.find("conv") != std::string::npos;
  if (what == "state") return ours.find("conv") == std::string::npos;
  return ours == what;
}

const CacheEntry& find_entry(const Model& model, std::pair<size_t, size_t> blocks,
                             const std::string& what) {
  const auto& all = const_cast<Model&>(model).stack().blocks();
  for (const CacheEntry& entry : model.cache_layout().entries) {
    const bool is_fixed = entry.spec.growth.kind == Growth::Kind::fixed;
    if (is_fixed != (what == "conv" || what == "state") || !is_named(entry.spec.name, what)) {
      continue;
    }
    for (size_t b = blocks.first; b < blocks.second && b < all.size(); ++b) {
      if (all[b].branches.empty() && all[b].site.id == entry.site) return entry;
    }
  }
  throw Error("the blocks " + std::to_string(blocks.first) + " to " +
              std::to_string(blocks.second - 1) + " keep no state like \"" + what + "\"");
}

// Stored (batch, channels, kernel); the oldest column is not needed, and ours may lack it.
std::vector<double> conv_of(const char* slot, const CacheEntry& entry, int64_t channels,
                            int64_t kernel) {
  const Shape& shape = entry.spec.shape;
  const bool time_first = shape.rank == 2 && shape[1] == channels;
  if (!time_first && !(shape.rank == 2 && shape[0] == channels)) {
    throw Error("the conv state is " + to_string(shape) + ", expected " + std::to_string(channels) +
                " channels");
  }
  const int64_t kept = time_first ? shape[0] : shape[1];
  std::vector<double> out;
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t k = kernel - std::min(kept, kernel - 1); k < kernel; ++k) {
      const int64_t t = k - (kernel - kept);
      out.push_back(element(slot, time_first ? t * channels + c : c * kept + t, entry.spec.dtype));
    }
  }
  return out;
}

// Bytes of a pool on the model's device.
Tensor bytes_at(void* base, int64_t offset, int64_t bytes, Device device) {
  return view_of(static_cast<char*>(base) + offset, {bytes}, DType::u8, device);
}

std::vector<double> expected_conv(const Values& expected, int64_t row, int64_t kept) {
  const int64_t channels = expected.shape[1], kernel = expected.shape[2];
  std::vector<double> out;
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t k = kernel - std::min(kept, kernel - 1); k < kernel; ++k) {
      out.push_back(expected.data[size_t((row * channels + c) * kernel + k)]);
    }
  }
  return out;
}

}  // namespace

double cache_difference(const Model& model, Cache& cache, const std::vector<int>& sequences,
                        std::pair<size_t, size_t> blocks, const std::string& what,
                        const Values& expected) {
  const CacheEntry& entry = find_entry(model, blocks, what);
  const bool is_conv = what == "conv", is_state = what == "state";
  const size_t rank = is_conv ? 3 : 4;
  const auto rows = int64_t(sequences.size());
  const bool fits =
      expected.shape.size() == rank && expected.shape[0] == rows && !expected.data.empty() &&
      (is_conv || is_state || expected.shape[1] * expected.shape[3] == entry.spec.shape.numel()) &&
      (!is_state || int64_t(expected.data.size()) == rows * entry.spec.shape.numel()) &&
      (is_conv || is_state || expected.shape[2] <= cache.length(sequences[0]));
  if (!fits) {
    throw Error("the stored cache \"" + what + "\" is " + shape_text(expected.shape) +
                ", which does not fit a state of " + to_string(entry.spec.shape) + " in " +
                std::to_string(rows) + " sequences");
  }
  const CacheBatch& batch = cache.begin(sequences, 0);
  const CacheLayout& layout = cache.layout();
  const HostCopy slots(batch.slots);
  double most = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const HostCopy entry_bytes(bytes_at(
        batch.slots_base,
        entry.group >= 0 ? 0 : slots->ptr<int32_t>()[row] * layout.slot_bytes + entry.offset,
        entry.group >= 0 ? 0 : entry.spec.shape.numel() * int64_t(size_of(entry.spec.dtype)),
        model.device()));
    const char* slot = entry_bytes->ptr<char>();
    std::vector<double> got, wanted;
    if (is_conv) {
      const Shape& shape = entry.spec.shape;
      const int64_t kept = shape.numel() / std::max<int64_t>(expected.shape[1], 1);
      got = conv_of(slot, entry, expected.shape[1], expected.shape[2]);
      wanted = expected_conv(expected, row, kept);
    } else if (is_state) {
      const size_t count = expected.data.size() / sequences.size();
      for (int64_t i = 0; i < entry.spec.shape.numel(); ++i) {
        got.push_back(element(slot, i, entry.spec.dtype));
      }
      wanted.assign(expected.data.begin() + int64_t(size_t(row) * count),
                    expected.data.begin() + int64_t(size_t(row + 1) * count));
    } else {
      // Stored (batch, heads, length, head_dim); ours are the tokens of a page, heads side by side.
      const int64_t heads = expected.shape[1], length = expected.shape[2], dim = expected.shape[3];
      const CacheBatch::Group& group = batch.groups[size_t(entry.group)];
      const HostCopy table(group.table);
      for (int64_t t = 0; t < length; ++t) {
        const int32_t page = table->row<int32_t>(row)[t / kPageTokens];
        if (page < 0) continue;  // it has left the window
        const HostCopy token_bytes(bytes_at(group.pages,
                                            page * layout.groups[size_t(entry.group)].page_bytes +
                                                entry.offset +
                                                (t % kPageTokens) * entry.token_bytes,
                                            entry.token_bytes, model.device()));
        const char* token = token_bytes->ptr<char>();
        for (int64_t i = 0; i < heads * dim; ++i) {
          got.push_back(element(token, i, entry.spec.dtype));
          const int64_t head = i / dim;
          wanted.push_back(
              expected.data[size_t(((row * heads + head) * length + t) * dim + i % dim)]);
        }
      }
    }
    const double difference = largest_difference(got, wanted);
    if (!(difference <= most)) most = difference;
  }
  return most;
}

}  // namespace strata::golden
