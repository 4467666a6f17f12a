#include "core/tensor/device.h"

#include <sys/mman.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <map>
#include <mutex>

namespace strata {

DeviceDriver::~DeviceDriver() = default;
DeviceGraph::~DeviceGraph() = default;

std::unique_ptr<DeviceGraph> DeviceDriver::record(const std::function<void()>&) { return nullptr; }

void* DeviceDriver::reserve(size_t bytes, const std::string& what) {
  void* memory = do_reserve(bytes, what);
  const size_t now = bytes_ += bytes;
  size_t peak = peak_bytes_;
  while (now > peak && !peak_bytes_.compare_exchange_weak(peak, now)) {
  }
  return memory;
}

void DeviceDriver::release(void* memory, size_t bytes) {
  do_release(memory, bytes);
  bytes_ -= bytes;
}

void DeviceDriver::note_launch(const char* op, std::string_view place) {
  std::scoped_lock lock(mutex_);
  last_.op = op;
  last_.place.assign(place);
}

DeviceDriver::Launch DeviceDriver::last_launch() const {
  std::scoped_lock lock(mutex_);
  return last_;
}

void DeviceDriver::fail(ErrorKind kind, const std::string& reason) {
  std::scoped_lock lock(mutex_);
  if (failure_.empty()) {
    std::string where;  // kernels run later than they are started
    if (last_.op) where = std::string(" at or before ") + last_.op;
    if (last_.op && !last_.place.empty()) where += " of " + last_.place;
    failure_ =
        "device " + name_ +
        (kind == ErrorKind::lost ? " was lost" + where + ": " + reason : ": " + reason + where) +
        "; this process cannot use it any more, what has been written stays good";
    if (kind == ErrorKind::fault)
      failure_ += "; CUDA_LAUNCH_BLOCKING=1 and model.cuda_graphs = false show the very kernel";
    failure_kind_ = kind;
  }
  throw Error(failure_, failure_kind_);
}

namespace {

class CpuDriver final : public DeviceDriver {
 public:
  CpuDriver() : DeviceDriver("cpu") {}
  std::string description() const override { return "CPU"; }
  DeviceFacts facts() const override { return {}; }
  size_t free_bytes() override { return 0; }

  Stream stream() const override { return {}; }
  void upload(void* to, const void* from, size_t bytes) override { copy(to, from, bytes); }
  void download(void* to, const void* from, size_t bytes) override { copy(to, from, bytes); }
  void copy(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void clear(void* memory, size_t bytes) override { std::memset(memory, 0, bytes); }
  void wait() override {}

 protected:
  // Zero pages straight from the system, touched on first use.
  void* do_reserve(size_t bytes, const std::string& what) override {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
      throw Error(what + ": the system cannot provide " + std::to_string(bytes >> 20) +
                      " MiB of memory; use a smaller batch_size, seq_len or model",
                  ErrorKind::resource);
    // Large pages spare page faults and TLB misses; a refusal changes nothing but speed.
    if (bytes >= (size_t{4} << 20)) madvise(p, bytes, MADV_HUGEPAGE);
    return p;
  }
  void do_release(void* memory, size_t bytes) override { munmap(memory, bytes); }
};

struct Devices {
  std::mutex mutex;
  DeviceLibrary libraries[kDeviceKinds] = {};
  std::map<std::pair<DeviceKind, int>, std::unique_ptr<DeviceDriver>> drivers;
};

// Never destroyed: memory of a device may be given back at any time before the process ends.
Devices& devices() {
  static Devices* d = new Devices;
  return *d;
}

}  // namespace

bool register_device_library(DeviceKind kind, const DeviceLibrary& library) {
  Devices& d = devices();
  std::scoped_lock lock(d.mutex);
  d.libraries[int(kind)] = library;
  return true;
}

bool has_device_library(DeviceKind kind) {
  Devices& d = devices();
  std::scoped_lock lock(d.mutex);
  return kind == DeviceKind::cpu || d.libraries[int(kind)].open;
}

DeviceCount count_devices(DeviceKind kind) {
  if (kind == DeviceKind::cpu) return {1, ""};
  if (!has_device_library(kind))
    return {0, std::string("no ") + name_of(kind) + " library is loaded"};
  return devices().libraries[int(kind)].count();
}

DeviceDriver& driver_of(Device device) {
  static CpuDriver cpu;
  if (device.kind == DeviceKind::cpu) return cpu;
  Devices& d = devices();
  std::scoped_lock lock(d.mutex);
  auto& driver = d.drivers[{device.kind, device.index}];
  if (!driver) {
    const DeviceLibrary& library = d.libraries[int(device.kind)];
    if (!library.open)
      throw Error("device " + to_string(device) + ": libstrata_" + name_of(device.kind) +
                      ".so is not loaded",
                  ErrorKind::device);
    driver = library.open(device.index);
  }
  return *driver;
}

Device parse_device(const std::string& name) {
  const size_t colon = name.find(':');
  const std::string kind = name.substr(0, colon);
  Device device;
  bool good = true;
  if (colon != std::string::npos) {
    const char* end = name.data() + name.size();
    const auto [rest, failed] = std::from_chars(name.data() + colon + 1, end, device.index);
    good = failed == std::errc{} && rest == end && device.index >= 0;
  }
  if (kind == "cuda")
    device.kind = DeviceKind::cuda;
  else
    good &= kind == "cpu" && device.index == 0;
  if (!good) throw Error("the device must be cpu, cuda or cuda:NUMBER, got '" + name + "'");
  return device;
}

bool DeviceChoice::allows(Device device) const {
  return device.kind == kind && (indices.empty() || std::find(indices.begin(), indices.end(),
                                                              device.index) != indices.end());
}

DeviceChoice parse_devices(const std::string& names) {
  if (names == "cuda") return {DeviceKind::cuda, {}};
  DeviceChoice choice;
  bool good = true;
  for (size_t begin = 0; good && begin <= names.size();) {
    const size_t end = std::min(names.find(',', begin), names.size());
    const std::string name = names.substr(begin, end - begin);
    const Device device = parse_device(name);
    good = choice.indices.empty() || (device.kind == choice.kind && !choice.allows(device));
    good &= device.kind == DeviceKind::cpu || name.find(':') != std::string::npos;
    choice.kind = device.kind;
    choice.indices.push_back(device.index);
    begin = end + 1;
  }
  good &= choice.indices.size() == 1 || choice.kind != DeviceKind::cpu;
  if (!good)
    throw Error("several devices must be distinct and of one kind, as in cuda:0,cuda:1, got '" +
                names + "'");
  return choice;
}

std::string to_string(Device device) {
  if (device.kind == DeviceKind::cpu) return "cpu";
  return std::string(name_of(device.kind)) + ":" + std::to_string(device.index);
}

HostCopy::HostCopy(const Tensor& tensor) : tensor_(tensor) {
  if (tensor.device.kind == DeviceKind::cpu || !tensor.data) return;
  const int64_t rows = tensor.rows();
  const size_t row_bytes = size_t(tensor.cols()) * size_of(tensor.dtype);
  const size_t pitch_bytes = size_t(tensor.pitch) * size_of(tensor.dtype);
  // One copy with the gaps, then the rows without them.
  bytes_.resize(rows > 0 ? size_t(rows - 1) * pitch_bytes + row_bytes : 0);
  driver_of(tensor.device).download(bytes_.data(), tensor.data, bytes_.size());
  for (int64_t r = 1; r < rows && pitch_bytes != row_bytes; ++r)
    std::memmove(bytes_.data() + size_t(r) * row_bytes, bytes_.data() + size_t(r) * pitch_bytes,
                 row_bytes);
  tensor_ = view_of(bytes_.data(), tensor.shape, tensor.dtype);
}

void assign_from_host(const Tensor& to, const void* from) {
  driver_of(to.device).upload(to.data, from, to.bytes());
}

}  // namespace strata
