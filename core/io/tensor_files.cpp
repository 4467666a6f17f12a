// TensorFiles: one safetensors file or a sharded model, and the elements of a tensor as doubles.
#include <filesystem>
#include <set>

#include "core/io/json.h"
#include "core/io/safetensors.h"
#include "core/tensor/convert.h"

namespace strata {

namespace fs = std::filesystem;

namespace {

// The shard of every tensor, from an index file.
std::map<std::string, std::string> read_index(const std::string& path) {
  std::map<std::string, std::string> shard_of;
  const Json json = read_json(path);
  for (const auto& [name, shard] : json.at("weight_map", path).as_object(path + ": weight_map")) {
    const std::string& file = shard.as_string(path + ": weight_map " + name);
    // A shard lies beside its index; a name that leaves the folder is not followed.
    if (file.empty() || file == "." || file == ".." || file.find('/') != std::string::npos) {
      throw Error(path + ": weight_map " + name + ": expected a file name without folders, got \"" +
                  file + "\"");
    }
    shard_of[name] = file;
  }
  return shard_of;
}

std::string find_model_file(const std::string& path) {
  if (!fs::is_directory(path)) return path;
  for (const char* name : {"model.safetensors", "model.safetensors.index.json"}) {
    const fs::path file = fs::path(path) / name;
    if (fs::exists(file)) return file.string();
  }
  throw Error(path + ": expected model.safetensors or model.safetensors.index.json in this folder");
}

}  // namespace

TensorFiles::TensorFiles(const std::string& path) {
  const std::string file = find_model_file(path);
  std::map<std::string, std::string> shard_of;
  if (file.ends_with(".json")) {
    shard_of = read_index(file);
    std::set<std::string> shards;
    for (const auto& [name, shard] : shard_of) shards.insert(shard);
    for (const std::string& shard : shards) {
      files_.emplace_back((fs::path(file).parent_path() / shard).string());
    }
  } else {
    files_.emplace_back(file);
  }
  for (size_t i = 0; i < files_.size(); ++i) {
    for (const StoredTensor& tensor : files_[i].tensors()) {
      const auto [at, is_new] = index_.try_emplace(tensor.name, i, &tensor);
      if (!is_new) {
        throw Error(files_[i].path() + ": tensor " + tensor.name + ": it is also in " +
                    files_[at->second.first].path());
      }
      tensors_.push_back(&tensor);
    }
  }
  for (const auto& [name, shard] : shard_of) {
    if (!find(name)) throw Error(file + ": tensor " + name + ": it is not in " + shard);
  }
}

const StoredTensor* TensorFiles::find(std::string_view name) const {
  const auto found = index_.find(std::string(name));
  return found == index_.end() ? nullptr : found->second.second;
}

std::string TensorFiles::file_of(std::string_view name) const {
  const auto found = index_.find(std::string(name));
  return found == index_.end() ? std::string() : files_[found->second.first].path();
}

namespace {

template <class T>
std::vector<double> integers(const StoredTensor& tensor) {
  const auto* values = static_cast<const T*>(tensor.data);
  return std::vector<double>(values, values + tensor.bytes / sizeof(T));
}

}  // namespace

std::vector<double> values_of(const StoredTensor& tensor) {
  switch (tensor.dtype) {
    case DType::i64:
      return integers<int64_t>(tensor);
    case DType::i32:
      return integers<int32_t>(tensor);
    case DType::i8:
      return integers<int8_t>(tensor);
    case DType::u8:
    case DType::boolean:
      return integers<uint8_t>(tensor);
    case DType::f8_e4m3:
      throw Error("tensor " + tensor.name + ": FP8 values need their scales to be read");
    default:
      break;
  }
  std::vector<double> out(tensor.bytes / size_of(tensor.dtype));
  convert_numbers(tensor.data, tensor.dtype, out.data(), DType::f64, out.size());
  return out;
}

}  // namespace strata
