// Products of two-byte numbers: cuBLASLt with one plan for every shape and layout.
#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "core/kernels/gemm_cuda.h"
#include "core/kernels/library_cuda.h"
#include "core/kernels/register.h"

namespace strata {
namespace {

constexpr char kLibrary[] = "libcublasLt.so.13";
constexpr int kGuesses = 8;  // the first guess of the library loses up to a tenth
constexpr int kRounds = 3;   // timed runs of each

void check(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  if (status == CUBLAS_STATUS_ALLOC_FAILED || status == CUBLAS_STATUS_NOT_INITIALIZED)
    throw Error(std::string("cuBLASLt: ") + what + " failed: the device has no memory left",
                ErrorKind::resource);
  if (status == CUBLAS_STATUS_EXECUTION_FAILED || status == CUBLAS_STATUS_INTERNAL_ERROR)
    device_error(ErrorKind::fault, "cuBLASLt: %s failed with status %d", what, int(status));
  kernel_error("cuBLASLt: %s failed with status %d", what, int(status));
}

// cuBLASLt with the functions that are used here.
struct CublasLt {
  template <class F>
  static F* function(const char* name) {
    return reinterpret_cast<F*>(cuda_symbol(open_cuda_library(kLibrary), name, kLibrary));
  }
#define STRATA_LT(member, name) decltype(&name) member = function<decltype(name)>(#name);
  STRATA_LT(create, cublasLtCreate)
  STRATA_LT(desc_create, cublasLtMatmulDescCreate)
  STRATA_LT(desc_set, cublasLtMatmulDescSetAttribute)
  STRATA_LT(layout_create, cublasLtMatrixLayoutCreate)
  STRATA_LT(layout_set, cublasLtMatrixLayoutSetAttribute)
  STRATA_LT(preference_create, cublasLtMatmulPreferenceCreate)
  STRATA_LT(preference_set, cublasLtMatmulPreferenceSetAttribute)
  STRATA_LT(preference_destroy, cublasLtMatmulPreferenceDestroy)
  STRATA_LT(heuristic, cublasLtMatmulAlgoGetHeuristic)
  STRATA_LT(config, cublasLtMatmulAlgoConfigGetAttribute)
  STRATA_LT(matmul, cublasLtMatmul)
#undef STRATA_LT
};

const CublasLt& lt() {
  static const CublasLt library;
  return library;
}

std::atomic<bool> search{false};

// Everything the choice of an algorithm depends on.
using Key = std::array<int64_t, 21>;

struct Plan {
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, r = nullptr, c = nullptr;
  std::vector<cublasLtMatmulHeuristicResult_t> guesses;  // the one in use first
  bool searched = false;
};

struct Plans {
  std::mutex mutex;
  std::map<int, cublasLtHandle_t> handles;  // by device
  std::map<Key, Plan> plans;
};

Plans& plans_of_process() {
  static Plans plans;
  return plans;
}

// The operands as cuBLASLt sees them. It is column-major, so that C^T = op(B)^T op(A)^T.
struct Operands {
  const void *b, *a, *r;
  void* c;
  float alpha, beta;
};

// The power of two up to 16 that divides the address and the distance of the products in bytes.
int64_t alignment(const void* p, int64_t stride_bytes) {
  const uint64_t bits = reinterpret_cast<uintptr_t>(p) | uint64_t(stride_bytes) | 16;
  return int64_t(bits & (~bits + 1));
}

template <class V>
void set(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t what, V value) {
  check(lt().desc_set(desc, what, &value, sizeof value), "a description");
}
template <class V>
void set(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t what,
         V value) {
  check(lt().preference_set(preference, what, &value, sizeof value), "a preference");
}

cublasLtMatrixLayout_t layout(cudaDataType_t type, int64_t cols, int64_t rows, int64_t ld,
                              int64_t stride, int64_t count) {
  cublasLtMatrixLayout_t made = nullptr;
  const int32_t batch = int32_t(count);
  check(lt().layout_create(&made, type, uint64_t(cols), uint64_t(rows), std::max(ld, cols)),
        "a layout");
  check(lt().layout_set(made, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch),
        "a layout");
  check(lt().layout_set(made, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride),
        "a layout");
  return made;
}

template <class T>
constexpr cudaDataType_t kType = dtype_of<T>() == DType::bf16  ? CUDA_R_16BF
                                 : dtype_of<T>() == DType::f16 ? CUDA_R_16F
                                                               : CUDA_R_32F;

cublasOperation_t operation(Trans t) { return t == Trans::yes ? CUBLAS_OP_T : CUBLAS_OP_N; }

template <class T, class C>
Plan make_plan(cublasLtHandle_t handle, const HalfProduct<T, C>& p) {
  Plan plan;
  check(lt().desc_create(&plan.desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), "a description");
  set(plan.desc, CUBLASLT_MATMUL_DESC_TRANSA, operation(p.tb));
  set(plan.desc, CUBLASLT_MATMUL_DESC_TRANSB, operation(p.ta));
  if (p.bias) {
    set(plan.desc, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(plan.desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, kType<T>);
    set(plan.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<const void*>(p.bias));
  }
  const bool ta = p.ta == Trans::yes, tb = p.tb == Trans::yes;
  plan.b = layout(kType<T>, tb ? p.k : p.n, tb ? p.n : p.k, p.ldb, p.stride_b, p.count);
  plan.a = layout(kType<T>, ta ? p.m : p.k, ta ? p.k : p.m, p.lda, p.stride_a, p.count);
  plan.r = layout(kType<C>, p.n, p.m, p.beta == 0 ? p.ldc : p.ldr, p.stride_c, p.count);
  plan.c = layout(kType<C>, p.n, p.m, p.ldc, p.stride_c, p.count);

  cublasLtMatmulPreference_t wish = nullptr;
  check(lt().preference_create(&wish), "a preference");
  set(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kGemmWorkspace);
  constexpr int64_t size = sizeof(T), size_c = sizeof(C);
  set(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
      uint32_t(alignment(p.b, p.stride_b * size)));
  set(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
      uint32_t(alignment(p.a, p.stride_a * size)));
  set(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
      uint32_t(alignment(p.beta == 0 ? p.c : p.r, p.stride_c * size_c)));
  set(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
      uint32_t(alignment(p.c, p.stride_c * size_c)));
  plan.guesses.resize(kGuesses);
  int found = 0;
  const cublasStatus_t status = lt().heuristic(handle, plan.desc, plan.b, plan.a, plan.r, plan.c,
                                               wish, kGuesses, plan.guesses.data(), &found);
  lt().preference_destroy(wish);
  if (status != CUBLAS_STATUS_SUCCESS || found == 0)
    kernel_error("cuBLASLt has no algorithm for a product of %lld x %lld x %lld (status %d)",
                 (long long)p.m, (long long)p.n, (long long)p.k, int(status));
  plan.guesses.resize(size_t(found));
  return plan;
}

cublasStatus_t run(cublasLtHandle_t handle, const Plan& plan, const Operands& o, size_t guess,
                   Stream stream) {
  return lt().matmul(handle, plan.desc, &o.alpha, o.b, plan.b, o.a, plan.a, &o.beta, o.r, plan.r,
                     o.c, plan.c, &plan.guesses[guess].algo, gemm_workspace(stream), kGemmWorkspace,
                     static_cast<cudaStream_t>(stream.handle));
}

// What the bits of a guess depend on: the family of its kernels and how it cuts k into parts that
// are summed apart. Tiles and clusters leave the order of a sum as it is.
std::array<uint32_t, 3> order_of(const cublasLtMatmulHeuristicResult_t& guess) {
  std::array<uint32_t, 3> order{};
  size_t written = 0;
  lt().config(&guess.algo, CUBLASLT_ALGO_CONFIG_ID, &order[0], 4, &written);
  lt().config(&guess.algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &order[1], 4, &written);
  lt().config(&guess.algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &order[2], 4, &written);
  return order;
}

// Puts the fastest guess first. The results go to memory of their own: beta may read C.
void search_guesses(cublasLtHandle_t handle, Plan& plan, Operands o, size_t bytes, Stream stream) {
  plan.searched = true;
  if (cudaMalloc(&o.c, bytes) != cudaSuccess) {
    (void)cudaGetLastError();
    return;
  }
  cudaEvent_t begin = nullptr, end = nullptr;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  const cudaStream_t s = static_cast<cudaStream_t>(stream.handle);
  size_t best = 0;
  float least = INFINITY;
  for (size_t i = 0; i < plan.guesses.size(); ++i) {
    if (order_of(plan.guesses[i]) != order_of(plan.guesses[0])) continue;
    if (run(handle, plan, o, i, stream) != CUBLAS_STATUS_SUCCESS) continue;
    for (int round = 0; round < kRounds; ++round) {
      float ms = INFINITY;
      cudaEventRecord(begin, s);
      run(handle, plan, o, i, stream);
      cudaEventRecord(end, s);
      if (cudaEventSynchronize(end) != cudaSuccess ||
          cudaEventElapsedTime(&ms, begin, end) != cudaSuccess)
        break;
      if (ms < least) least = ms, best = i;
    }
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  cudaFree(o.c);
  std::swap(plan.guesses[0], plan.guesses[best]);
}

bool capturing(Stream stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  return cudaStreamIsCapturing(static_cast<cudaStream_t>(stream.handle), &status) != cudaSuccess ||
         status != cudaStreamCaptureStatusNone;
}

}  // namespace

void set_gemm_search(bool on) { search = on; }

template <class T, class C>
void gemm_cuda_half(Stream stream, const HalfProduct<T, C>& p) {
  if (p.m == 0 || p.n == 0 || p.count == 0) return;
  if (p.k == 0) {
    if (p.bias || (p.beta != 0 && (p.r != p.c || p.beta != 1)))
      kernel_error("a product with k = 0 adds nothing but C itself");
    for (int64_t i = 0; i < p.count && p.beta == 0; ++i)
      cudaMemset2DAsync(p.c + i * p.stride_c, size_t(p.ldc) * sizeof(C), 0, size_t(p.n) * sizeof(C),
                        size_t(p.m), static_cast<cudaStream_t>(stream.handle));
    return;
  }
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess) kernel_error("cuBLASLt: no CUDA device is current");
  const bool residual = p.beta != 0;
  constexpr int64_t size = sizeof(T), size_c = sizeof(C);
  const Key key{device,
                kType<T>,
                kType<C>,
                int64_t(p.ta) * 4 + int64_t(p.tb) * 2 + residual,
                p.bias != nullptr,
                p.m,
                p.n,
                p.k,
                p.lda,
                p.ldb,
                p.ldc,
                residual ? p.ldr : p.ldc,
                p.stride_a,
                p.stride_b,
                p.stride_c,
                p.count,
                alignment(p.a, p.stride_a * size),
                alignment(p.b, p.stride_b * size),
                alignment(p.c, p.stride_c * size_c),
                residual ? alignment(p.r, p.stride_c * size_c) : 0,
                residual && static_cast<const void*>(p.r) == p.c};
  // A plan's description holds the address of the bias, so one call at a time.
  Plans& all = plans_of_process();
  std::scoped_lock lock(all.mutex);
  cublasLtHandle_t& handle = all.handles[device];
  if (!handle) check(lt().create(&handle), "cublasLtCreate");
  auto found = all.plans.find(key);
  if (found == all.plans.end()) found = all.plans.emplace(key, make_plan(handle, p)).first;
  Plan& plan = found->second;
  if (p.bias) set(plan.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<const void*>(p.bias));
  const Operands operands{p.b, p.a, residual ? p.r : p.c, p.c, p.alpha, p.beta};
  if (search && !plan.searched && !capturing(stream))
    search_guesses(handle, plan, operands,
                   size_t((p.count - 1) * p.stride_c + (p.m - 1) * p.ldc + p.n) * sizeof(C),
                   stream);
  check(run(handle, plan, operands, 0, stream), "a matrix product");
}

template void gemm_cuda_half(Stream, const HalfProduct<bf16, bf16>&);
template void gemm_cuda_half(Stream, const HalfProduct<bf16, float>&);
template void gemm_cuda_half(Stream, const HalfProduct<f16, f16>&);
template void gemm_cuda_half(Stream, const HalfProduct<f16, float>&);

}  // namespace strata
