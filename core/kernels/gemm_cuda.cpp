#include "core/kernels/gemm_cuda.h"

#include <cublas_v2.h>

#include <atomic>
#include <map>
#include <mutex>
#include <string>
#include <type_traits>

#include "core/kernels/library_cuda.h"
#include "core/kernels/register.h"

namespace strata {
namespace {

constexpr char kLibrary[] = "libcublas.so.13";

void check(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  if (status == CUBLAS_STATUS_ALLOC_FAILED || status == CUBLAS_STATUS_NOT_INITIALIZED)
    throw Error(std::string("cuBLAS: ") + what + " failed: the device has no memory left",
                ErrorKind::resource);
  if (status == CUBLAS_STATUS_EXECUTION_FAILED || status == CUBLAS_STATUS_INTERNAL_ERROR)
    device_error(ErrorKind::fault, "cuBLAS: %s failed with status %d", what, int(status));
  kernel_error("cuBLAS: %s failed with status %d", what, int(status));
}

// cuBLAS with the functions that are used here.
struct Cublas {
  template <class F>
  static F* function(const char* name) {
    return reinterpret_cast<F*>(cuda_symbol(open_cuda_library(kLibrary), name, kLibrary));
  }
  decltype(&cublasCreate_v2) create = function<decltype(cublasCreate_v2)>("cublasCreate_v2");
  decltype(&cublasSetStream_v2) set_stream =
      function<decltype(cublasSetStream_v2)>("cublasSetStream_v2");
  decltype(&cublasSetWorkspace_v2) set_workspace =
      function<decltype(cublasSetWorkspace_v2)>("cublasSetWorkspace_v2");
  decltype(&cublasSetMathMode) set_math_mode =
      function<decltype(cublasSetMathMode)>("cublasSetMathMode");
  decltype(&cublasSgemmStridedBatched_64) sgemm =
      function<decltype(cublasSgemmStridedBatched_64)>("cublasSgemmStridedBatched_64");
  decltype(&cublasDgemmStridedBatched_64) dgemm =
      function<decltype(cublasDgemmStridedBatched_64)>("cublasDgemmStridedBatched_64");
};

const Cublas& cublas() {
  static const Cublas library;
  return library;
}

std::atomic<bool> tf32{false};

// One handle per stream, with a workspace of its own: the same call gives the same bits.
struct Handle {
  cublasHandle_t cublas = nullptr;
  cublasMath_t mode = CUBLAS_DEFAULT_MATH;
};

cublasHandle_t handle_of(Stream stream) {
  static std::mutex mutex;
  static std::map<void*, Handle> handles;
  std::scoped_lock lock(mutex);
  Handle& handle = handles[stream.handle];
  if (!handle.cublas) {
    check(cublas().create(&handle.cublas), "cublasCreate");
    check(cublas().set_stream(handle.cublas, static_cast<cudaStream_t>(stream.handle)),
          "cublasSetStream");
    check(cublas().set_workspace(handle.cublas, gemm_workspace(stream), kGemmWorkspace),
          "cublasSetWorkspace");
  }
  const cublasMath_t mode = tf32 ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_PEDANTIC_MATH;
  if (handle.mode != mode) {
    check(cublas().set_math_mode(handle.cublas, mode), "cublasSetMathMode");
    handle.mode = mode;
  }
  return handle.cublas;
}

cublasOperation_t operation(Trans t) { return t == Trans::yes ? CUBLAS_OP_T : CUBLAS_OP_N; }

}  // namespace

void* gemm_workspace(Stream stream) {
  static std::mutex mutex;
  static std::map<void*, void*> workspaces;
  std::scoped_lock lock(mutex);
  void*& workspace = workspaces[stream.handle];
  if (!workspace && cudaMalloc(&workspace, kGemmWorkspace) != cudaSuccess)
    throw Error("cuBLAS: the device has no 32 MiB left for its workspace", ErrorKind::resource);
  return workspace;
}

void set_tf32(bool on) { tf32 = on; }

template <class T, class C>
void gemm_cuda_batched(Stream stream, Trans ta, Trans tb, int64_t m, int64_t n, int64_t k,
                       Accum<T> alpha, const T* a, int64_t lda, int64_t stride_a, const T* b,
                       int64_t ldb, int64_t stride_b, Accum<T> beta, C* c, int64_t ldc,
                       int64_t stride_c, int64_t count) {
  if (m == 0 || n == 0 || count == 0) return;
  if constexpr (is_half<T>) {
    gemm_cuda_half<T, C>(stream, {ta,  tb,       m,    n, k,   alpha,   a, lda, stride_a, b,
                                  ldb, stride_b, beta, c, ldc, nullptr, c, ldc, stride_c, count});
  } else {
    // cuBLAS is column-major: C^T = op(B)^T op(A)^T.
    const auto run = [&](auto* function) {
      check(function(handle_of(stream), operation(tb), operation(ta), n, m, k, &alpha, b, ldb,
                     stride_b, a, lda, stride_a, &beta, c, ldc, stride_c, count),
            "a matrix product");
    };
    if constexpr (std::is_same_v<T, float>)
      run(cublas().sgemm);
    else
      run(cublas().dgemm);
  }
}

template <class T, class C>
void gemm_cuda(Stream stream, Trans ta, Trans tb, int64_t m, int64_t n, int64_t k, Accum<T> alpha,
               const T* a, int64_t lda, const T* b, int64_t ldb, Accum<T> beta, C* c, int64_t ldc) {
  gemm_cuda_batched<T, C>(stream, ta, tb, m, n, k, alpha, a, lda, 0, b, ldb, 0, beta, c, ldc, 0, 1);
}

#define STRATA_GEMM_CUDA(T, C)                                                                     \
  template void gemm_cuda<T, C>(Stream, Trans, Trans, int64_t, int64_t, int64_t, Accum<T>,         \
                                const T*, int64_t, const T*, int64_t, Accum<T>, C*, int64_t);      \
  template void gemm_cuda_batched<T, C>(Stream, Trans, Trans, int64_t, int64_t, int64_t, Accum<T>, \
                                        const T*, int64_t, int64_t, const T*, int64_t, int64_t,    \
                                        Accum<T>, C*, int64_t, int64_t, int64_t);
STRATA_GEMM_CUDA(float, float)
STRATA_GEMM_CUDA(double, double)
STRATA_GEMM_CUDA(bf16, bf16)
STRATA_GEMM_CUDA(bf16, float)
STRATA_GEMM_CUDA(f16, f16)
STRATA_GEMM_CUDA(f16, float)

}  // namespace strata
