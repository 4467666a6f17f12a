// CUDA devices as core/tensor/device.h asks for them.
#include <cuda_runtime.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstring>

#include "core/kernels/error_cuda.h"
#include "core/kernels/gemm_cuda.h"
#include "core/kernels/library_cuda.h"
#include "core/tensor/device.h"

namespace strata {
namespace {

constexpr int kLeastMajor = 8;  // compute capability 8.0, Ampere

// A fault of a kernel shows at whatever is called after it; other errors name what was called.
void check(DeviceDriver& driver, cudaError_t status, const std::string& what) {
  if (status == cudaSuccess) return;
  const std::string words = std::string("CUDA says: ") + cudaGetErrorString(status);
  const ErrorKind kind = kind_of(status);
  if (kind == ErrorKind::fault || kind == ErrorKind::lost) driver.fail(kind, words);
  (void)cudaGetLastError();
  throw Error(what + ": " + words +
                  (kind == ErrorKind::device ? "; check nvidia-smi, or use device = \"cpu\"" : ""),
              kind == ErrorKind::device ? kind : ErrorKind::resource);
}

// "13.0" for 13000
std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

int version_of(cudaError_t (*ask)(int*)) {
  int version = 0;
  if (ask(&version) != cudaSuccess) (void)cudaGetLastError();
  return version;
}

// As nvidia-smi says it, "580.159.03"; "" where its library cannot be asked.
std::string ask_driver_version() {
  char text[96] = "";
  void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) return text;
  const auto init = reinterpret_cast<int (*)()>(dlsym(library, "nvmlInit_v2"));
  const auto ask =
      reinterpret_cast<int (*)(char*, unsigned)>(dlsym(library, "nvmlSystemGetDriverVersion"));
  if (init && ask && init() == 0) ask(text, sizeof text - 1);
  return text;
}

const std::string& driver_version() {
  static const std::string version = ask_driver_version();
  return version;
}

class CudaGraph final : public DeviceGraph {
 public:
  CudaGraph(cudaGraph_t graph, DeviceDriver& driver, const std::string& place)
      : driver_(driver), place_(place) {
    const cudaError_t status = cudaGraphInstantiate(&run_, graph, 0);
    cudaGraphDestroy(graph);
    check(driver_, status, place_ + ": a graph cannot be built");
  }
  ~CudaGraph() override { cudaGraphExecDestroy(run_); }
  void launch() override {
    check(driver_, cudaGraphLaunch(run_, static_cast<cudaStream_t>(driver_.stream().handle)),
          place_ + ": a graph cannot be started");
  }

 private:
  cudaGraphExec_t run_ = nullptr;
  DeviceDriver& driver_;
  std::string place_;
};

// Pinned bytes on their way to the device, used round and round: an upload from here needs no wait.
class Staging {
 public:
  static constexpr size_t kBytes = size_t{4} << 20, kLargest = kBytes / 4;

  // A place for `bytes`, no more than kLargest; earlier content has left when it is handed out.
  void* take(size_t bytes, DeviceDriver& driver) {
    if (!memory_) check(driver, cudaMallocHost(&memory_, kBytes), "no pinned memory");
    bytes = (bytes + 63) / 64 * 64;
    if (next_ + bytes > kBytes) {
      driver.wait();
      next_ = 0;
    }
    next_ += bytes;
    return static_cast<char*>(memory_) + next_ - bytes;
  }

 private:
  void* memory_ = nullptr;
  size_t next_ = 0;
};

class CudaDriver final : public DeviceDriver {
 public:
  explicit CudaDriver(int index)
      : DeviceDriver("cuda:" + std::to_string(index)), index_(index), place_("device " + name()) {
    check(cudaGetDeviceProperties(&properties_, index));
    if (properties_.major < kLeastMajor)
      throw Error(place_ + ": " + properties_.name + " has compute capability " +
                      std::to_string(properties_.major) + "." + std::to_string(properties_.minor) +
                      ", at least 8.0 is needed; use device = \"cpu\"",
                  ErrorKind::device);
    check(cudaSetDevice(index));
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  }

  std::string description() const override {
    char text[400];
    std::snprintf(text, sizeof text, "%s, %d multiprocessors, %.0f GiB, compute capability %d.%d",
                  properties_.name, properties_.multiProcessorCount,
                  double(properties_.totalGlobalMem) / double(1 << 30), properties_.major,
                  properties_.minor);
    return text;
  }

  DeviceFacts facts() const override {
    return {properties_.name, driver_version(), version_text(version_of(&cudaDriverGetVersion)),
            version_text(version_of(&cudaRuntimeGetVersion))};
  }

  std::vector<Library> libraries() const override {
    std::vector<Library> all;
    for (const auto& [name, file] :
         {std::pair{"cuBLAS", "libcublas.so.13"}, {"cuBLASLt", "libcublasLt.so.13"}}) {
      const FoundLibrary found = find_cuda_library(file);
      all.push_back({name, found.handle ? found.path : found.why, found.handle != nullptr});
    }
    return all;
  }

  size_t free_bytes() override {
    size_t free = 0, total = 0;
    check(cudaSetDevice(index_));
    check(cudaMemGetInfo(&free, &total));
    return free;
  }

  void configure(const DeviceOptions& options) override {
    set_tf32(options.tf32);
    set_gemm_search(!options.deterministic);
  }

  Stream stream() const override { return {stream_}; }

  void upload(void* to, const void* from, size_t bytes) override {
    if (bytes > Staging::kLargest) {
      move(to, from, bytes, cudaMemcpyHostToDevice);
      return wait();
    }
    void* staged = staging_.take(bytes, *this);
    if (bytes > 0) std::memcpy(staged, from, bytes);
    move(to, staged, bytes, cudaMemcpyHostToDevice);
  }
  void download(void* to, const void* from, size_t bytes) override {
    move(to, from, bytes, cudaMemcpyDeviceToHost);
    wait();
  }
  void copy(void* to, const void* from, size_t bytes) override {
    move(to, from, bytes, cudaMemcpyDeviceToDevice);
  }
  void clear(void* memory, size_t bytes) override {
    check(cudaMemsetAsync(memory, 0, bytes, stream_));
  }
  void wait() override { check(cudaStreamSynchronize(stream_)); }

  std::unique_ptr<DeviceGraph> record(const std::function<void()>& work) override {
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    cudaGraph_t graph = nullptr;
    try {
      work();
    } catch (...) {
      if (cudaStreamEndCapture(stream_, &graph) == cudaSuccess) cudaGraphDestroy(graph);
      (void)cudaGetLastError();
      throw;
    }
    strata::check(*this, cudaStreamEndCapture(stream_, &graph),
                  place_ + ": a step cannot be recorded; set model.cuda_graphs = false");
    return std::make_unique<CudaGraph>(graph, *this, place_);
  }

 protected:
  void* do_reserve(size_t bytes, const std::string& what) override {
    void* p = nullptr;
    check(cudaSetDevice(index_));
    const cudaError_t status = cudaMalloc(&p, bytes);
    if (status == cudaErrorMemoryAllocation) {
      (void)cudaGetLastError();
      throw Error(what + ": " + place_ + " cannot provide " + std::to_string(bytes >> 20) +
                      " MiB of memory, " + std::to_string(free_bytes() >> 20) +
                      " MiB are free; use a smaller batch_size, seq_len or model",
                  ErrorKind::resource);
    }
    check(status);
    clear(p, bytes);
    return p;
  }

  // Whoever releases memory at the end of the process finds the context gone: that is no error.
  void do_release(void* memory, size_t) override {
    if (cudaStreamSynchronize(stream_) != cudaSuccess) (void)cudaGetLastError();
    if (cudaFree(memory) != cudaSuccess) (void)cudaGetLastError();
  }

 private:
  void check(cudaError_t status) { strata::check(*this, status, place_); }

  void move(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    if (bytes > 0)
      strata::check(*this, cudaMemcpyAsync(to, from, bytes, kind, stream_),
                    place_ + ": a copy failed");
  }

  int index_;
  std::string place_;
  cudaDeviceProp properties_{};
  cudaStream_t stream_ = nullptr;
  Staging staging_;
};

DeviceCount count() {
  DeviceCount found;
  const cudaError_t status = cudaGetDeviceCount(&found.count);
  if (status != cudaSuccess) {
    (void)cudaGetLastError();
    found = {0, cudaGetErrorString(status)};
  } else if (found.count == 0) {
    found.why = "no CUDA device is visible";
  }
  return found;
}

std::unique_ptr<DeviceDriver> open(int index) {
  const DeviceCount found = count();
  const std::string place = "device cuda:" + std::to_string(index);
  if (found.count == 0)
    throw Error(place + ": " + found.why + "; check nvidia-smi, or use device = \"cpu\"",
                ErrorKind::device);
  if (index >= found.count)
    throw Error(place + ": this machine has " + std::to_string(found.count) +
                    " CUDA devices, cuda:0 to cuda:" + std::to_string(found.count - 1),
                ErrorKind::device);
  return std::make_unique<CudaDriver>(index);
}

const bool registered = register_device_library(DeviceKind::cuda, {&open, &count});

}  // namespace
}  // namespace strata
