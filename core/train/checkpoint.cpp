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

// A 64-bit hash (FNV-1a over 8-byte words): finds flipped bits, not attackers.
struct Hash {
  uint64_t value = 0xcbf29ce484222325u;

  // All pieces but the last must be multiples of 8 bytes long.
  void add(const std::byte* data, size_t size) {
    size_t i = 0;
    for (; i + 8 <= size; i += 8) {
      uint64_t word;
      std::memcpy(&word, data + i, 8);
      value = (value ^ word) * 0x100000001b3u;
      value ^= value >> 29;
    }
    for (; i < size; ++i) value = (value ^ uint64_t(data[i])) * 0x100000001b3u;
  }
  std::string text() const {
    char text[17];
    std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
    return text;
  }
};

// Piece by piece, so that a checkpoint never needs its own size in memory.
static std::string file_hash(const std::string& path) {
  constexpr size_t kPiece = size_t{1} << 20;
  const MappedFile file(path);
  Hash hash;
  for (size_t at = 0; at < file.size(); at += kPiece) {
    const size_t size = std::min(kPiece, file.size() - at);
    hash.add(file.data() + at, size);
    file.forget(file.data() + at, size);
  }
  return hash.text();
}

// The hash of state.json's own members.
static std::string state_hash(const Json& state, const std::string& where) {
  Json rest = Json::object();
  for (const Json::Member& member : state.as_object(where))
    if (member.key != "state_hash") rest.set(member.key, member.value);
  const std::string text = rest.dump();
  Hash hash;
  hash.add(reinterpret_cast<const std::byte*>(text.data()), text.size());
  return hash.text();
}

// Tensors of any device on their way to a file.
struct StoredTensors {
  void add(std::string name, const Tensor& tensor) {
    const Tensor& t = *copies.emplace_back(tensor);
    list.push_back(
        {std::move(name), t.dtype, {t.shape.dim, t.shape.dim + t.shape.rank}, t.data, t.bytes()});
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

// What killed writers of other steps have left; that of this step is AtomicFolder's.
static void remove_leftovers(const std::string& folder) {
  std::vector<std::string> torn;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string path = entry.path().string();
    if (const size_t at = path.rfind(".tmp-"); at != std::string::npos)
      torn.push_back(path.substr(0, at));
  }
  for (const std::string& path : torn) settle_folder(path);
}

std::string save_checkpoint(const std::string& folder, Trainer& trainer, int64_t keep,
                            const std::string& extra) {
  make_folders(folder);
  remove_leftovers(folder);
  const Trainer::Cursor cursor = trainer.cursor();
  const std::string path = folder + "/" + step_name(cursor.step);
  AtomicFolder out(path);
  StoredTensors weights, moments;
  for (const NamedParam& p : trainer.model().params().all()) weights.add(p.name, p.slot->value);
  for (const AdamW::State& s : trainer.optimizer().states()) {
    moments.add("m." + s.name, s.m);
    moments.add("v." + s.name, s.v);
    if (s.master) moments.add("master." + s.name, s.master);
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
  state.set("state_hash", state_hash(state, "state.json"));
  write_file(out.temporary() + "/state.json", state.dump(2) + "\n");
  out.commit();

  // A later step than this one was damaged, and passed over: it must not crowd out good ones.
  std::vector<std::string> all = complete_checkpoints(folder);
  const auto later = std::partition_point(all.begin(), all.end(), [&](const fs::path& each) {
    return each.filename() <= fs::path(path).filename();
  });
  const auto kept = std::min<int64_t>(std::max<int64_t>(keep, 1), later - all.begin());
  all.erase(later - kept, later);
  std::error_code ignored;
  for (const std::string& old : all) fs::remove_all(old, ignored);
  return path;
}

// Opens a checkpoint's parts after checking their hashes.
struct OpenCheckpoint {
  explicit OpenCheckpoint(const std::string& path) : state(read_json(path + "/state.json")) {
    const std::string where = path + "/state.json";
    if (state.at("format", where).as_int(where) != kFormat)
      throw Error(where + ": format must be " + std::to_string(kFormat) + ", got " +
                  state.at("format", where).describe());
    check(where, state.at("state_hash", where).as_string(where), state_hash(state, where));
    for (const char* part : {"model", "optimizer"}) {
      const std::string file = path + "/" + part + ".safetensors";
      const std::string expected = state.at(std::string(part) + "_hash", where).as_string(where);
      check(file, expected, file_hash(file));
    }
  }
  static void check(const std::string& file, const std::string& expected, const std::string& got) {
    if (got == expected) return;
    throw Error(file + ": the content has hash " + got + ", it was written with " + expected +
                "; the file is damaged, use an earlier checkpoint");
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
  file.forget(source);
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
  for (const AdamW::State& s : trainer.optimizer().states()) {
    read_into(file, "m." + s.name, s.m);
    read_into(file, "v." + s.name, s.v);
    if (s.master) read_into(file, "master." + s.name, s.master);
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
