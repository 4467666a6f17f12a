#include "tests/bench/device/ceilings_cuda.h"

#include <cublasLt.h>
#include <cuda_bf16.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "core/contract/error.h"
#include "core/kernels/library_cuda.h"

namespace strata::bench {
namespace {

void check(cudaError_t status) {
  if (status != cudaSuccess)
    throw Error(std::string("the ceilings: CUDA says: ") + cudaGetErrorString(status),
                ErrorKind::resource);
}

void check(cublasStatus_t status) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw Error("the ceilings: cuBLASLt fails with status " + std::to_string(int(status)),
                ErrorKind::resource);
}

// The functions of cuBLASLt that are used here, found at run time as the kernels' libraries are.
struct CublasLt {
  static constexpr const char* kLibrary = "libcublasLt.so.13";
  template <class F>
  static F* function(const char* name) {
    return reinterpret_cast<F*>(cuda_symbol(open_cuda_library(kLibrary), name, kLibrary));
  }
  decltype(&cublasLtCreate) create = function<decltype(cublasLtCreate)>("cublasLtCreate");
  decltype(&cublasLtDestroy) destroy = function<decltype(cublasLtDestroy)>("cublasLtDestroy");
  decltype(&cublasLtMatmulDescCreate) product =
      function<decltype(cublasLtMatmulDescCreate)>("cublasLtMatmulDescCreate");
  decltype(&cublasLtMatmulDescSetAttribute) set_product =
      function<decltype(cublasLtMatmulDescSetAttribute)>("cublasLtMatmulDescSetAttribute");
  decltype(&cublasLtMatrixLayoutCreate) layout =
      function<decltype(cublasLtMatrixLayoutCreate)>("cublasLtMatrixLayoutCreate");
  decltype(&cublasLtMatmulPreferenceCreate) preference =
      function<decltype(cublasLtMatmulPreferenceCreate)>("cublasLtMatmulPreferenceCreate");
  decltype(&cublasLtMatmulPreferenceSetAttribute) set_preference =
      function<decltype(cublasLtMatmulPreferenceSetAttribute)>(
          "cublasLtMatmulPreferenceSetAttribute");
  decltype(&cublasLtMatmulAlgoGetHeuristic) algorithms =
      function<decltype(cublasLtMatmulAlgoGetHeuristic)>("cublasLtMatmulAlgoGetHeuristic");
  decltype(&cublasLtMatmul) matmul = function<decltype(cublasLtMatmul)>("cublasLtMatmul");
};

struct DeviceBytes {
  explicit DeviceBytes(size_t bytes) { check(cudaMalloc(&data, bytes)); }
  ~DeviceBytes() { cudaFree(data); }
  DeviceBytes(const DeviceBytes&) = delete;
  DeviceBytes& operator=(const DeviceBytes&) = delete;
  void* data = nullptr;
};

// Words of uniform bits, as bf16 numbers of moderate size: the exponent is kept near 1.
__global__ void fill_kernel(uint32_t* words, size_t n) {
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < n;
       i += size_t(gridDim.x) * blockDim.x) {
    uint32_t x = uint32_t(i) * 2654435761u;
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    x ^= x >> 16;
    words[i] = (x & 0x80ff80ffu) | 0x3f003f00u;
  }
}

// Every thread has four loads of 16 bytes in flight.
__global__ void read_kernel(const uint4* x, size_t n, uint32_t* sink) {
  constexpr int kFlight = 4;
  const size_t stride = size_t(gridDim.x) * blockDim.x;
  size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x;
  uint32_t sum = 0;
  for (; i + (kFlight - 1) * stride < n; i += kFlight * stride) {
    uint4 v[kFlight];
#pragma unroll
    for (int k = 0; k < kFlight; ++k) v[k] = __ldcs(x + i + size_t(k) * stride);
#pragma unroll
    for (int k = 0; k < kFlight; ++k) sum ^= v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
  }
  for (; i < n; i += stride) sum ^= x[i].x ^ x[i].y ^ x[i].z ^ x[i].w;
  if (sum == 0x12345678u) *sink = sum;
}

double median_of(cudaStream_t stream, int rounds, const std::function<void()>& run) {
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  run();
  std::vector<float> times;
  for (int i = 0; i < rounds; ++i) {
    check(cudaEventRecord(begin, stream));
    run();
    check(cudaEventRecord(end, stream));
    check(cudaEventSynchronize(end));
    check(cudaEventElapsedTime(&times.emplace_back(), begin, end));
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::sort(times.begin(), times.end());
  return double(times[times.size() / 2]) * 1e-3;
}

double bytes_per_second(cudaStream_t stream, int multiprocessors) {
  constexpr size_t kBytes = size_t{4} << 30;
  const DeviceBytes block(kBytes), sink(4);
  fill_kernel<<<4096, 256, 0, stream>>>(static_cast<uint32_t*>(block.data), kBytes / 4);
  double best = 0;
  for (const int blocks : {2, 4}) {
    const double seconds = median_of(stream, 5, [&] {
      read_kernel<<<blocks * multiprocessors, 512, 0, stream>>>(
          static_cast<const uint4*>(block.data), kBytes / 16, static_cast<uint32_t*>(sink.data));
      check(cudaGetLastError());
    });
    best = std::max(best, double(kBytes) / seconds);
  }
  return best;
}

double flops_per_second(cudaStream_t stream) {
  constexpr int64_t n = 8192;
  constexpr size_t kWorkspace = size_t{64} << 20;
  const DeviceBytes a(n * n * 2), b(n * n * 2), c(n * n * 2), workspace(kWorkspace);
  for (const DeviceBytes* m : {&a, &b})
    fill_kernel<<<4096, 256, 0, stream>>>(static_cast<uint32_t*>(m->data), size_t(n * n / 2));
  check(cudaGetLastError());
  const CublasLt lt;
  cublasLtHandle_t handle;
  cublasLtMatmulDesc_t product;
  cublasLtMatrixLayout_t square;
  cublasLtMatmulPreference_t preference;
  check(lt.create(&handle));
  check(lt.product(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  const cublasOperation_t transposed = CUBLAS_OP_T;
  check(lt.set_product(product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed));
  check(lt.layout(&square, CUDA_R_16BF, n, n, n));
  check(lt.preference(&preference));
  check(lt.set_preference(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspace,
                          sizeof kWorkspace));
  cublasLtMatmulHeuristicResult_t found[8];
  int count = 0;
  check(
      lt.algorithms(handle, product, square, square, square, square, preference, 8, found, &count));
  double best = 0;
  const float one = 1, zero = 0;
  for (int i = 0; i < count; ++i) {
    if (found[i].state != CUBLAS_STATUS_SUCCESS) continue;
    const double seconds = median_of(stream, 9, [&] {
      check(lt.matmul(handle, product, &one, a.data, square, b.data, square, &zero, c.data, square,
                      c.data, square, &found[i].algo, workspace.data, kWorkspace, stream));
    });
    best = std::max(best, 2.0 * double(n) * double(n) * double(n) / seconds);
  }
  lt.destroy(handle);
  return best;
}

}  // namespace

Ceilings measure_ceilings(cudaStream_t stream) {
  int device = 0;
  cudaDeviceProp properties;
  check(cudaGetDevice(&device));
  check(cudaGetDeviceProperties(&properties, device));
  return {properties.name, flops_per_second(stream),
          bytes_per_second(stream, properties.multiProcessorCount)};
}

}  // namespace strata::bench
