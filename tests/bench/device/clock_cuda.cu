// The clock of CUDA devices: events around a graph's replay, or around the call itself.
#include <cuda_runtime.h>

#include <string>

#include "core/kernels/half.cuh"
#include "core/tensor/device.h"
#include "tests/bench/device/ceilings_cuda.h"
#include "tests/bench/device/clock.h"

namespace strata::bench {
namespace {

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess)
    throw Error(std::string(what) + ": CUDA says: " + cudaGetErrorString(status),
                ErrorKind::resource);
}

template <class T>
__global__ void randomize_kernel(Tensor t, double low, double high, uint64_t seed) {
  const int64_t n = t.numel(), cols = t.cols();
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n;
       i += int64_t(gridDim.x) * blockDim.x)
    t.row<T>(i / cols)[i % cols] = T(float(low + (high - low) * uniform_at(seed, uint64_t(i))));
}

// Events of one measurement.
struct Stopwatch {
  explicit Stopwatch(cudaStream_t stream) : stream(stream) {
    check(cudaEventCreate(&begin), "an event");
    check(cudaEventCreate(&end), "an event");
  }
  ~Stopwatch() {
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
  }
  double seconds(const std::function<void()>& body) {
    check(cudaEventRecord(begin, stream), "an event");
    body();
    check(cudaEventRecord(end, stream), "an event");
    check(cudaEventSynchronize(end), "a kernel failed");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin, end), "an event");
    return double(ms) * 1e-3;
  }
  cudaStream_t stream;
  cudaEvent_t begin = nullptr, end = nullptr;
};

class CudaClock final : public Clock {
 public:
  explicit CudaClock(Device device)
      : driver_(driver_of(device)), stream_(static_cast<cudaStream_t>(driver_.stream().handle)) {
    check(cudaSetDevice(device.index), "the device");
  }

  Ceilings ceilings() override { return measure_ceilings(stream_); }

  double seconds(const Runs& runs) override {
    runs.prepare();
    runs.body();  // whatever is set up at the first call is set up now
    driver_.wait();
    Stopwatch watch(stream_);
    if (!runs.captures) {
      const auto once = [&] {
        runs.prepare();
        driver_.wait();
        return watch.seconds(runs.body);
      };
      once();
      return median_seconds(once) / runs.repeats;
    }
    runs.prepare();
    driver_.wait();
    const auto graph = driver_.record(runs.body);
    const auto once = [&] { return watch.seconds([&] { graph->launch(); }); };
    warm(once);
    return median_seconds(once) / runs.repeats;
  }

  void randomize(const Tensor& t, double low, double high, uint64_t seed) override {
    if (t.dtype == DType::bf16)
      randomize_as<bf16>(t, low, high, seed);
    else if (t.dtype == DType::f16)
      randomize_as<f16>(t, low, high, seed);
    else if (t.dtype == DType::f32)
      randomize_as<float>(t, low, high, seed);
    else
      throw Error(std::string("random numbers of ") + name_of(t.dtype) + " on CUDA");
  }

 private:
  // The card raises its clocks within milliseconds of work.
  static void warm(const std::function<double()>& once) {
    double total = 0;
    for (int i = 0; i < 3 || (total < 0.02 && i < 200); ++i) total += once();
  }
  template <class T>
  void randomize_as(const Tensor& t, double low, double high, uint64_t seed) {
    if (t.numel() == 0) return;
    randomize_kernel<T><<<1024, 256, 0, stream_>>>(t, low, high, seed);
    check(cudaGetLastError(), "random numbers");
  }

  DeviceDriver& driver_;
  cudaStream_t stream_;
};

const bool registered = register_clock(
    DeviceKind::cuda,
    [](Device device) -> std::unique_ptr<Clock> { return std::make_unique<CudaClock>(device); });

}  // namespace
}  // namespace strata::bench
