#include "core/train/checkpoint.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <deque>
#include <filesystem>

#include "core/io/file.h"
#include "core/io/json.h"
#include "core/io/safetensors.h"
#include "core/tensor/device.h"

namespace strata {
namespace fs = std::filesystem;

constexpr int kFormat = 1;

// A 64-bit hash of a file's bytes (FNV-1a over 8-byte words): finds flipped bits, not attackers.
static std::string file_hash(const std::string& path) {
  const MappedFile file(path);
  uint64_t hash = 0xcbf29ce484222325u;
  size_t i = 0;
  for (; i + 8 <= file.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, file.data() + i, 8);
    hash = (hash ^ word) * 0x100000001b3u;
    hash ^= hash >> 29;
  }
  for (; i < file.size(); ++i) hash = (hash ^ uint64_t(file.data()[i])) * 0x100000001b3u;
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

// Tensors of any device on their way to a file.
struct StoredTensors {
  void add(std::string name, const Tensor& tensor) {
    const Tensor& t = *copies.emplace_back(tensor);
    list.push_back({std::move(name), t.dtype, {t.shape.dim, t.shape.dim + t.shape.rank}, t.data,
                    t.bytes()});
  }
  std::deque<HostCopy> copies;
  std::vector<StoredTensor> list;
};

static std::string step_name(int64_t step) {
  char text[32];
  std::snprintf(text, sizeof text, "step-%08lld", static_cast<long long>(step));
  return text;
}

static std::vector<std::string> complete_checkpoints(const std::string& folder) {
  std::vector<std::string> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename();
    if (name.size() == 13 && name.starts_with("step-") &&
        name.find_first_not_of("0123456789", 5) == std::string::npos)
      found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::string save_checkpoint(const std::string& folder, Trainer& trainer, int64_t keep,
                            const std::string& extra) {
  make_folders(folder);
  const Trainer::Cursor cursor = trainer.cursor();
  const std::string path = folder + "/" + step_name(cursor.step);
  AtomicFolder out(path);
  StoredTensors weights, moments;
  for (const NamedParam& p : trainer.model().params().all())
    weights.add(p.name, p.slot->value);
  for (const AdamW::Moments& m : trainer.optimizer().moments()) {
    moments.add("m." + m.name, m.m);
    moments.add("v." + m.name, m.v);
  }
  const std::string model_file = out.temporary() + "/model.safetensors";
  const std::string optimizer_file = out.temporary() + "/optimizer.safetensors";
  write_safetensors(model_file, weights.list, {{"format", "strata"}});
  write_safetensors(optimizer_file, moments.list, {{"format", "strata"}});
  Json state = Json::object();
  state.set("format", kFormat)
      .set("step", cursor.step)
      .set("updates", cursor.updates)
      .set("skipped", cursor.skipped)
      .set("skipped_in_row", cursor.skipped_in_row)
      .set("model_hash", file_hash(model_file))
      .set("optimizer_hash", file_hash(optimizer_file))
      .set("extra", extra);
  write_file(out.temporary() + "/state.json", state.dump(2) + "\n");
  out.commit();

  const std::vector<std::string> all = complete_checkpoints(folder);
  for (size_t i = 0; i + size_t(std::max<int64_t>(keep, 1)) < all.size(); ++i) {
    std::error_code ignored;
    fs::remove_all(all[i], ignored);
  }
  return path;
}

// Opens a checkpoint's parts after checking their hashes.
struct OpenCheckpoint {
  explicit OpenCheckpoint(const std::string& path) : state(read_json(path + "/state.json")) {
    const std::string where = path + "/state.json";
    if (state.at("format", where).as_int(where) != kFormat)
      throw Error(where + ": format must be " + std::to_string(kFormat) + ", got " +
                  state.at("format", where).describe());
    for (const char* part : {"model", "optimizer"}) {
      const std::string file = path + "/" + part + ".safetensors";
      const std::string expected = state.at(std::string(part) + "_hash", where).as_string(where);
      const std::string got = file_hash(file);
      if (got != expected)
        throw Error(file + ": the content has hash " + got + ", it was written with " + expected +
                    "; the file is damaged, use an earlier checkpoint");
    }
  }
  Json state;
};

std::string latest_checkpoint(const std::string& folder, std::vector<std::string>* damaged) {
  std::vector<std::string> all = complete_checkpoints(folder);
  for (auto it = all.rbegin(); it != all.rend(); ++it) {
    try {
      OpenCheckpoint check(*it);
      return *it;
    } catch (const Error& error) {
      if (damaged) damaged->push_back(error.what());
    }
  }
  return "";
}

static void read_into(const Safetensors& file, const std::string& name, const Tensor& target) {
  const StoredTensor& source = file.at(name);
  const std::vector<int64_t> shape(target.shape.dim, target.shape.dim + target.shape.rank);
  if (source.shape != shape || source.dtype != target.dtype)
    throw Error(file.path() + ": tensor '" + name + "' must be " + name_of(target.dtype) + " " +
                shape_text(shape) + ", got " + name_of(source.dtype) + " " +
                shape_text(source.shape) + "; it belongs to another model");
  assign_from_host(target, source.data);
}

static void read_weights(const std::string& path, Model& model) {
  const Safetensors file(path + "/model.safetensors");
  for (const StoredTensor& t : file.tensors())
    if (!model.params().find(t.name))
      throw Error(file.path() + ": tensor '" + t.name + "' is not in this model");
  for (const NamedParam& p : model.params().all()) read_into(file, p.name, p.slot->value);
}

std::string load_checkpoint(const std::string& path, Trainer& trainer) {
  const OpenCheckpoint open(path);
  read_weights(path, trainer.model());
  const Safetensors file(path + "/optimizer.safetensors");
  for (const AdamW::Moments& m : trainer.optimizer().moments()) {
    read_into(file, "m." + m.name, m.m);
    read_into(file, "v." + m.name, m.v);
  }
  const std::string where = path + "/state.json";
  const Json& s = open.state;
  trainer.restore({s.at("step", where).as_int(where), s.at("updates", where).as_int(where),
                   s.at("skipped", where).as_int(where),
                   s.at("skipped_in_row", where).as_int(where)});
  return s.at("extra", where).as_string(where);
}

void load_weights(const std::string& path, Model& model) {
  const OpenCheckpoint open(path);
  read_weights(path, model);
}

std::string checkpoint_extra(const std::string& path) {
  const std::string where = path + "/state.json";
  return read_json(where).at("extra", where).as_string(where);
}

}  // namespace strata
