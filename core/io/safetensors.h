// Safetensors: an 8-byte little-endian header length, a JSON header that gives every tensor's
// dtype, shape and byte range, then the raw data (github.com/huggingface/safetensors).
//
// The files are untrusted: lengths, products of dims and byte ranges are checked before use, and
// ranges must cover the data exactly, without gaps or overlaps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/contract/error.h"
#include "core/contract/tensor.h"
#include "core/io/file.h"

namespace strata {

// A named tensor whose data somebody else owns; packed, row-major. `data` is aligned for dtype.
struct StoredTensor {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;  // a scalar has none
  const void* data = nullptr;
  size_t bytes = 0;
};

// The number of elements; 1 for a scalar. Throws Error if a dim is negative or the product does
// not fit an int64_t.
STRATA_API int64_t numel_of(const std::vector<int64_t>& shape, std::string_view where);
// "[2, 7, 2048]".
STRATA_API std::string shape_text(const std::vector<int64_t>& shape);
// "F32", "BF16", "F8_E4M3", ... as safetensors spells them.
STRATA_API const char* safetensors_name(DType dtype);
// The elements as doubles, of any dtype but f8_e4m3 (throws Error naming the tensor).
STRATA_API std::vector<double> values_of(const StoredTensor& tensor);

// One file, mapped read-only. The tensors stay valid as long as the object lives.
class STRATA_API Safetensors {
 public:
  // Throws Error naming file and tensor for everything that is wrong with the header.
  explicit Safetensors(const std::string& path);
  const std::string& path() const { return file_.path(); }
  // In the order of their data.
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  // Null if there is no such tensor.
  const StoredTensor* find(std::string_view name) const;
  // Throws Error naming the file if there is no such tensor.
  const StoredTensor& at(std::string_view name) const;
  // Lets the memory that holds a tensor go until it is read again.
  void forget(const StoredTensor& tensor) const { file_.forget(tensor.data, tensor.bytes); }
  // The header's __metadata__.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  MappedFile file_;
  std::vector<StoredTensor> tensors_;
  std::unordered_map<std::string, size_t> index_;
  std::map<std::string, std::string> metadata_;
  std::vector<std::vector<std::byte>> realigned_;  // tensors that lie at odd addresses in the file
};

// The tensors of a model: one file, or the shards that an index lists.
class STRATA_API TensorFiles {
 public:
  // `path` is a .safetensors file, a .safetensors.index.json, or a folder that holds
  // model.safetensors or model.safetensors.index.json. Throws Error if the index and the shards
  // disagree, or a name is in two shards.
  explicit TensorFiles(const std::string& path);
  const std::vector<Safetensors>& files() const { return files_; }
  // All tensors, file by file in the order of their data.
  const std::vector<const StoredTensor*>& tensors() const { return tensors_; }
  const StoredTensor* find(std::string_view name) const;
  // The file that holds a tensor, for messages; "" if there is none.
  std::string file_of(std::string_view name) const;

 private:
  std::vector<Safetensors> files_;
  std::vector<const StoredTensor*> tensors_;
  std::unordered_map<std::string, std::pair<size_t, const StoredTensor*>> index_;
};

// Writes a file, whole or not at all, with the tensors in the given order. Throws Error on a
// repeated name, a shape that does not match `bytes`, or what AtomicFile throws.
STRATA_API void write_safetensors(const std::string& path, const std::vector<StoredTensor>& tensors,
                                  const std::map<std::string, std::string>& metadata = {});

}  // namespace strata
