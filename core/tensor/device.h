// A device as the host sees it: memory, copies and one stream. The CPU's is built in, CUDA's comes
// with libstrata_cuda.so, which plugins/host loads when a config asks for it.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
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

// What a record says of a device.
struct DeviceFacts {
  std::string name;                 // "NVIDIA H200"
  std::string driver, driver_cuda;  // "580.159.03", "13.0": the newest CUDA that it serves
  std::string cuda;                 // "13.0": of the runtime library
};

// What a run may trade for speed.
struct DeviceOptions {
  bool tf32 = false;          // float32 products round their factors to 10 bits of mantissa
  bool deterministic = true;  // false: the fastest product of each shape is searched
};

class STRATA_API DeviceDriver {
 public:
  // `name`: "cuda:0", for messages.
  explicit DeviceDriver(std::string name) : name_(std::move(name)) {}
  virtual ~DeviceDriver();
  // "NVIDIA H200, 132 multiprocessors, 139 GiB"
  virtual std::string description() const = 0;
  virtual DeviceFacts facts() const = 0;
  // Holds for the kernels that are started from now on.
  virtual void configure(const DeviceOptions&) {}
  // Libraries that kernels of this device use, and where they were found, or what was tried.
  struct Library {
    std::string name, place;
    bool found = false;
  };
  virtual std::vector<Library> libraries() const { return {}; }
  // Bytes that can still be reserved, whoever uses the rest; 0: unknown.
  virtual size_t free_bytes() = 0;
  // The most that this process has had reserved at once.
  size_t peak_bytes() const { return peak_bytes_; }
  // Zero-filled memory that lives until it is released. Throws Error (resource) naming `what`.
  void* reserve(size_t bytes, const std::string& what);
  void release(void* memory, size_t bytes);
  // Every kernel and copy runs in this stream's order.
  virtual Stream stream() const = 0;
  // The host's bytes may be reused when these return; small uploads do not wait for the device.
  virtual void upload(void* to, const void* from, size_t bytes) = 0;
  virtual void download(void* to, const void* from, size_t bytes) = 0;
  virtual void copy(void* to, const void* from, size_t bytes) = 0;
  virtual void clear(void* memory, size_t bytes) = 0;
  // Waits for everything that was started. Throws Error (fault or lost) when a kernel has failed:
  // that shows at this or any other call after it, and every later call says the same.
  virtual void wait() = 0;
  // Records what `work` starts on the stream; nothing of it runs. `work` must not move bytes
  // between host and device. Null where the device has no such thing.
  virtual std::unique_ptr<DeviceGraph> record(const std::function<void()>& work);

  // A kernel is about to be started: where a fault that shows from now on can have come from at the
  // latest. `op` lives as long as the process.
  void note_launch(const char* op, std::string_view place);
  struct Launch {
    const char* op = nullptr;
    std::string place;
  };
  Launch last_launch() const;
  // Throws the Error of a kernel that failed, with the last launch; the first one is kept and
  // thrown again by every later call. `kind`: fault or lost.
  [[noreturn]] void fail(ErrorKind kind, const std::string& reason);

 protected:
  const std::string& name() const { return name_; }
  virtual void* do_reserve(size_t bytes, const std::string& what) = 0;
  virtual void do_release(void* memory, size_t bytes) = 0;

 private:
  std::atomic<size_t> bytes_{0}, peak_bytes_{0};
  std::string name_;
  mutable std::mutex mutex_;  // of what follows
  Launch last_;
  std::string failure_;
  ErrorKind failure_kind_ = ErrorKind::fault;
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

// Devices of one kind that may be used.
struct STRATA_API DeviceChoice {
  DeviceKind kind = DeviceKind::cpu;
  std::vector<int> indices;  // empty: every one that is there
  bool allows(Device device) const;
};
// "cpu", "cuda" (every one), "cuda:1", "cuda:0,cuda:1". Throws Error for anything else.
STRATA_API DeviceChoice parse_devices(const std::string& names);
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
