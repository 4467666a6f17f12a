// TensorFiles: one safetensors file or a sharded model, and the elements of a tensor as doubles.
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <set>

#include "core/io/json.h"
#include "core/io/safetensors.h"

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

double from_half(uint16_t bits) {
  const int exponent = bits >> 10 & 31;
  const int mantissa = bits & 1023;
  const double magnitude = exponent == 31  ? (mantissa ? std::numeric_limits<double>::quiet_NaN()
                                                       : std::numeric_limits<double>::infinity())
                           : exponent == 0 ? std::ldexp(mantissa, -24)
                                           : std::ldexp(mantissa + 1024, exponent - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}

template <class T>
void append(std::vector<double>& out, const StoredTensor& tensor, double (*convert)(T)) {
  const auto* values = static_cast<const T*>(tensor.data);
  const size_t count = tensor.bytes / sizeof(T);
  out.reserve(count);
  for (size_t i = 0; i < count; ++i) out.push_back(convert(values[i]));
}

template <class T>
double plain(T value) {
  return static_cast<double>(value);
}

}  // namespace

std::vector<double> values_of(const StoredTensor& tensor) {
  std::vector<double> out;
  switch (tensor.dtype) {
    case DType::f64:
      append<double>(out, tensor, plain);
      break;
    case DType::f32:
      append<float>(out, tensor, plain);
      break;
    case DType::i64:
      append<int64_t>(out, tensor, plain);
      break;
    case DType::i32:
      append<int32_t>(out, tensor, plain);
      break;
    case DType::i8:
      append<int8_t>(out, tensor, plain);
      break;
    case DType::u8:
    case DType::boolean:
      append<uint8_t>(out, tensor, plain);
      break;
    case DType::f16:
      append<uint16_t>(out, tensor, from_half);
      break;
    case DType::bf16:
      append<uint16_t>(out, tensor, [](uint16_t bits) {
        return static_cast<double>(std::bit_cast<float>(uint32_t{bits} << 16));
      });
      break;
    case DType::f8_e4m3:
      throw Error("tensor " + tensor.name + ": FP8 values need their scales to be read");
  }
  return out;
}

}  // namespace strata
