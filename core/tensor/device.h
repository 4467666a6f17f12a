// A device as the host sees it: memory, copies and one stream. The CPU's is built in, CUDA's comes
// with libstrata_cuda.so, which plugins/host loads when a config asks for it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/contract/context.h"

namespace strata {

// Work that was recorded once and is started again as a whole.
class STRATA_API DeviceGraph {
 public:
  virtual ~DeviceGraph();
  virtual void launch() = 0;
};

class STRATA_API DeviceDriver {
 public:
  virtual ~DeviceDriver();
  // "NVIDIA H200, 132 multiprocessors, 139 GiB"
  virtual std::string description() const = 0;
  // Libraries that kernels of this device use, and where they were found, or what was tried.
  struct Library {
    std::string name, place;
    bool found = false;
  };
  virtual std::vector<Library> libraries() const { return {}; }
  // Bytes that can still be reserved; 0: unknown.
  virtual size_t free_bytes() const = 0;
  // Zero-filled memory that lives until it is released. Throws Error (resource) naming `what`.
  virtual void* reserve(size_t bytes, const std::string& what) = 0;
  virtual void release(void* memory, size_t bytes) = 0;
  // Every kernel and copy runs in this stream's order.
  virtual Stream stream() const = 0;
  // The host's bytes may be reused when these return; small uploads do not wait for the device.
  virtual void upload(void* to, const void* from, size_t bytes) = 0;
  virtual void download(void* to, const void* from, size_t bytes) = 0;
  virtual void copy(void* to, const void* from, size_t bytes) = 0;
  virtual void clear(void* memory, size_t bytes) = 0;
  // Waits for everything that was started. Throws Error when a kernel has failed.
  virtual void wait() = 0;
  // Records what `work` starts on the stream; nothing of it runs. `work` must not move bytes
  // between host and device. Null where the device has no such thing.
  virtual std::unique_ptr<DeviceGraph> record(const std::function<void()>& work);
};

// The driver of a device, opened at first use and kept. Throws Error when nothing serves the
// device.
STRATA_API DeviceDriver& driver_of(Device device);

// How many devices of a kind there are; `why` says what is missing when there is none.
struct DeviceCount {
  int count = 0;
  std::string why;
};

// What a device library brings: it opens drivers and counts devices. Called when it is loaded.
struct DeviceLibrary {
  std::unique_ptr<DeviceDriver> (*open)(int index);
  DeviceCount (*count)();
};
STRATA_API bool register_device_library(DeviceKind kind, const DeviceLibrary& library);
STRATA_API bool has_device_library(DeviceKind kind);
STRATA_API DeviceCount count_devices(DeviceKind kind);

// "cpu", "cuda", "cuda:1". Throws Error for anything else.
STRATA_API Device parse_device(const std::string& name);
STRATA_API std::string to_string(Device device);

// A tensor's numbers where the host can read them: the tensor itself on the CPU, else a packed
// copy.
class STRATA_API HostCopy {
 public:
  explicit HostCopy(const Tensor& tensor);
  HostCopy(const HostCopy&) = delete;
  HostCopy& operator=(const HostCopy&) = delete;
  const Tensor& operator*() const { return tensor_; }
  const Tensor* operator->() const { return &tensor_; }

 private:
  Tensor tensor_;
  std::vector<char> bytes_;
};

// Writes a packed tensor from host memory of as many bytes.
STRATA_API void assign_from_host(const Tensor& to, const void* from);

}  // namespace strata
