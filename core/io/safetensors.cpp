#include "core/io/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <unordered_set>

#include "core/io/json.h"

namespace strata {

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

namespace {

constexpr size_t kMaxHeader = 100'000'000;  // the limit of the format's own reader

struct TypeName {
  DType dtype;
  const char* name;
};
constexpr std::array<TypeName, 10> kTypes{{{DType::f64, "F64"},
                                           {DType::f32, "F32"},
                                           {DType::bf16, "BF16"},
                                           {DType::f16, "F16"},
                                           {DType::i64, "I64"},
                                           {DType::i32, "I32"},
                                           {DType::i8, "I8"},
                                           {DType::u8, "U8"},
                                           {DType::boolean, "BOOL"},
                                           {DType::f8_e4m3, "F8_E4M3"}}};

DType parse_dtype(const std::string& name, const std::string& where) {
  std::string known;
  for (const TypeName& type : kTypes) {
    if (name == type.name) return type.dtype;
    known += std::string(known.empty() ? "" : ", ") + type.name;
  }
  throw Error(where + ": expected a dtype of " + known + ", got \"" + name + "\"");
}

// A byte range of the data and the tensor that claims it.
struct Range {
  size_t begin, end;
};

size_t parse_offset(const Json& json, const std::string& where) {
  const int64_t value = json.as_int(where);
  if (value < 0) throw Error(where + " must not be negative, got " + std::to_string(value));
  return static_cast<size_t>(value);
}

Range parse_range(const Json& entry, size_t data_bytes, const std::string& where) {
  const auto& offsets = entry.at("data_offsets", where).as_array(where + ": data_offsets");
  if (offsets.size() != 2) {
    throw Error(where + ": data_offsets must be [begin, end], got " +
                std::to_string(offsets.size()) + " values");
  }
  const Range range{parse_offset(offsets[0], where + ": data_offsets"),
                    parse_offset(offsets[1], where + ": data_offsets")};
  if (range.begin > range.end || range.end > data_bytes) {
    throw Error(where + ": data_offsets [" + std::to_string(range.begin) + ", " +
                std::to_string(range.end) + "] are out of range, the file has " +
                std::to_string(data_bytes) + " bytes of data");
  }
  return range;
}

std::vector<int64_t> parse_shape(const Json& entry, const std::string& where) {
  std::vector<int64_t> shape;
  for (const Json& dim : entry.at("shape", where).as_array(where + ": shape")) {
    shape.push_back(dim.as_int(where + ": each dim of shape"));
  }
  return shape;
}

// The ranges, sorted, must cover [0, data_bytes) exactly once.
void check_cover(const std::vector<std::pair<Range, std::string>>& sorted, size_t data_bytes,
                 const std::string& path) {
  size_t end = 0;
  const std::string* last = nullptr;
  for (const auto& [range, name] : sorted) {
    if (range.begin < end) {
      throw Error(path + ": tensor " + name + ": its bytes [" + std::to_string(range.begin) + ", " +
                  std::to_string(range.end) + ") overlap those of " + *last + ", which end at " +
                  std::to_string(end));
    }
    if (range.begin > end) {
      throw Error(path + ": tensor " + name + ": its bytes begin at " +
                  std::to_string(range.begin) + ", which leaves a gap after byte " +
                  std::to_string(end));
    }
    end = range.end;
    last = &name;
  }
  if (end != data_bytes) {
    throw Error(path + ": the tensors need " + std::to_string(end) +
                " bytes of data, the file has " + std::to_string(data_bytes));
  }
}

std::string_view header_of(const MappedFile& file) {
  const std::string& path = file.path();
  if (file.size() < 8) {
    throw Error(path + ": expected a safetensors file of at least 8 bytes, got " +
                std::to_string(file.size()));
  }
  uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  if (length > kMaxHeader || length > file.size() - 8) {
    throw Error(path + ": bad header length " + std::to_string(length) + ", expected at most " +
                std::to_string(std::min(kMaxHeader, file.size() - 8)));
  }
  const auto* text = reinterpret_cast<const char*>(file.data() + 8);
  if (length < 2 || text[0] != '{') {
    throw Error(path + ": expected a header that begins with '{'; this is no safetensors file");
  }
  return {text, static_cast<size_t>(length)};
}

}  // namespace

int64_t numel_of(const std::vector<int64_t>& shape, std::string_view where) {
  bool empty = false;
  int64_t count = 1;
  for (const int64_t dim : shape) {
    if (dim < 0) {
      throw Error(std::string(where) + ": dims must not be negative, got " + shape_text(shape));
    }
    empty = empty || dim == 0;
    if (__builtin_mul_overflow(count, std::max<int64_t>(dim, 1), &count)) {
      throw Error(std::string(where) + ": the shape " + shape_text(shape) + " is too large");
    }
  }
  return empty ? 0 : count;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (const int64_t dim : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(dim);
  return text + "]";
}

const char* safetensors_name(DType dtype) {
  for (const TypeName& type : kTypes) {
    if (type.dtype == dtype) return type.name;
  }
  return "?";
}

Safetensors::Safetensors(const std::string& path) : file_(path) {
  const std::string_view header = header_of(file_);
  const std::byte* data = file_.data() + 8 + header.size();
  const size_t data_bytes = file_.size() - 8 - header.size();
  const Json json = parse_json(header, path + " (header)");

  std::vector<std::pair<Range, std::string>> ranges;
  for (const auto& [name, entry] : json.as_object(path + ": the header")) {
    if (name == "__metadata__") {
      for (const auto& [key, value] : entry.as_object(path + ": __metadata__")) {
        metadata_[key] = value.as_string(path + ": __metadata__ " + key);
      }
      continue;
    }
    const std::string where = path + ": tensor " + name;
    StoredTensor tensor;
    tensor.name = name;
    tensor.dtype = parse_dtype(entry.at("dtype", where).as_string(where + ": dtype"), where);
    tensor.shape = parse_shape(entry, where);
    const Range range = parse_range(entry, data_bytes, where);
    tensor.data = data + range.begin;
    tensor.bytes = range.end - range.begin;
    int64_t need = 0;
    if (__builtin_mul_overflow(numel_of(tensor.shape, where), int64_t(size_of(tensor.dtype)),
                               &need) ||
        static_cast<size_t>(need) != tensor.bytes) {
      throw Error(where + ": shape " + shape_text(tensor.shape) + " of " +
                  safetensors_name(tensor.dtype) + " does not fit its " +
                  std::to_string(tensor.bytes) + " bytes");
    }
    ranges.emplace_back(range, name);
    tensors_.push_back(std::move(tensor));
  }

  const auto before = [](const Range& a, const Range& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  };
  std::stable_sort(ranges.begin(), ranges.end(),
                   [&](const auto& a, const auto& b) { return before(a.first, b.first); });
  check_cover(ranges, data_bytes, path);

  std::unordered_map<std::string, size_t> place;
  for (size_t i = 0; i < ranges.size(); ++i) place[ranges[i].second] = i;
  std::sort(tensors_.begin(), tensors_.end(), [&](const StoredTensor& a, const StoredTensor& b) {
    return place[a.name] < place[b.name];
  });
  for (size_t i = 0; i < tensors_.size(); ++i) index_[tensors_[i].name] = i;

  // Old writers did not pad the header, so data may lie at addresses that no number may have.
  for (StoredTensor& tensor : tensors_) {
    if (reinterpret_cast<uintptr_t>(tensor.data) % size_of(tensor.dtype) == 0) continue;
    const auto* from = static_cast<const std::byte*>(tensor.data);
    realigned_.emplace_back(from, from + tensor.bytes);
    tensor.data = realigned_.back().data();
  }
}

const StoredTensor* Safetensors::find(std::string_view name) const {
  const auto found = index_.find(std::string(name));
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

const StoredTensor& Safetensors::at(std::string_view name) const {
  if (const StoredTensor* tensor = find(name)) return *tensor;
  throw Error(path() + ": there is no tensor " + std::string(name));
}

void write_safetensors(const std::string& path, const std::vector<StoredTensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  if (!metadata.empty()) {
    Json values = Json::object();
    for (const auto& [key, value] : metadata) values.set(key, value);
    header.set("__metadata__", std::move(values));
  }
  Json::Object members = header.as_object("");
  std::unordered_set<std::string> names;
  size_t offset = 0;
  for (const StoredTensor& tensor : tensors) {
    const std::string where = path + ": tensor " + tensor.name;
    if (tensor.name == "__metadata__" || !is_utf8(tensor.name)) {
      throw Error(where + ": this name cannot be written");
    }
    if (!names.insert(tensor.name).second) throw Error(where + ": it is given twice");
    if (static_cast<size_t>(numel_of(tensor.shape, where)) * size_of(tensor.dtype) !=
        tensor.bytes) {
      throw Error(where + ": shape " + shape_text(tensor.shape) + " of " +
                  safetensors_name(tensor.dtype) + " does not fit its " +
                  std::to_string(tensor.bytes) + " bytes");
    }
    Json shape = Json::array(), offsets = Json::array();
    for (const int64_t dim : tensor.shape) shape.push(dim);
    offsets.push(static_cast<int64_t>(offset)).push(static_cast<int64_t>(offset + tensor.bytes));
    Json entry = Json::object();
    entry.set("dtype", safetensors_name(tensor.dtype));
    entry.set("shape", std::move(shape)).set("data_offsets", std::move(offsets));
    members.push_back({tensor.name, std::move(entry)});
    offset += tensor.bytes;
  }
  std::string text = Json::object(std::move(members)).dump();
  text.resize((text.size() + 63) / 64 * 64, ' ');  // data begins 8 bytes after a multiple of 64
  const uint64_t length = text.size();

  AtomicFile file(path);
  file.write(&length, 8);
  file.write(text);
  for (const StoredTensor& tensor : tensors) file.write(tensor.data, tensor.bytes);
  file.commit();
}

}  // namespace strata
