#include "core/tensor/device.h"

#include <sys/mman.h>

#include <charconv>
#include <cstring>
#include <map>
#include <mutex>

namespace strata {

DeviceDriver::~DeviceDriver() = default;
DeviceGraph::~DeviceGraph() = default;

std::unique_ptr<DeviceGraph> DeviceDriver::record(const std::function<void()>&) { return nullptr; }

namespace {

class CpuDriver final : public DeviceDriver {
 public:
  std::string description() const override { return "CPU"; }
  size_t free_bytes() const override { return 0; }

  // Zero pages straight from the system, touched on first use.
  void* reserve(size_t bytes, const std::string& what) override {
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
  void release(void* memory, size_t bytes) override { munmap(memory, bytes); }

  Stream stream() const override { return {}; }
  void upload(void* to, const void* from, size_t bytes) override { copy(to, from, bytes); }
  void download(void* to, const void* from, size_t bytes) override { copy(to, from, bytes); }
  void copy(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void clear(void* memory, size_t bytes) override { std::memset(memory, 0, bytes); }
  void wait() override {}
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
                  ".so is not loaded");
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
