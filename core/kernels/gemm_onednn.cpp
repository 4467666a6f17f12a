#include "core/kernels/gemm_onednn.h"

#include <omp.h>

#include <array>
#include <dnnl.hpp>
#include <map>
#include <memory>
#include <mutex>

#include "core/contract/error.h"

namespace strata {
namespace {

using dnnl::memory;

// What a matmul primitive is made for. `sum` adds into C.
using Key = std::array<int64_t, 10>;

struct Primitive {
  memory::desc a, b, c;
  dnnl::matmul run;
  size_t scratch = 0;
  memory::desc scratch_desc;
};

const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

// The cached primitive for a shape; the cache is emptied when it has grown to kMost entries.
std::shared_ptr<const Primitive> primitive(const Key& key) {
  constexpr size_t kMost = 512;
  static std::mutex mutex;
  static std::map<Key, std::shared_ptr<const Primitive>> cache;
  const std::lock_guard lock(mutex);
  if (const auto found = cache.find(key); found != cache.end()) return found->second;
  if (cache.size() >= kMost) cache.clear();
  const auto [m, n, k, ta, tb, lda, ldb, ldc, sum, threads] = key;
  const auto f32 = memory::data_type::f32;
  auto made = std::make_shared<Primitive>();
  made->a = {{m, k}, f32, ta ? memory::dims{1, lda} : memory::dims{lda, 1}};
  made->b = {{k, n}, f32, tb ? memory::dims{1, ldb} : memory::dims{ldb, 1}};
  made->c = {{m, n}, f32, memory::dims{ldc, 1}};
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (sum) {
    dnnl::post_ops ops;
    ops.append_sum(1.0f);
    attr.set_post_ops(ops);
  }
  const dnnl::matmul::primitive_desc desc({made->a, made->b, made->c}, attr, engine());
  made->scratch_desc = desc.scratchpad_desc();
  made->scratch = made->scratch_desc.get_size();
  made->run = dnnl::matmul(desc);
  return cache.emplace(key, std::move(made)).first->second;
}

void matmul(const Key& key, const float* a, const float* b, float* c) {
  static thread_local dnnl::stream stream(engine());
  static thread_local std::unique_ptr<std::byte[]> scratch;
  static thread_local size_t have = 0;
  const auto p = primitive(key);
  if (have < p->scratch) {
    scratch = std::make_unique_for_overwrite<std::byte[]>(p->scratch);
    have = p->scratch;
  }
  p->run.execute(stream, {{DNNL_ARG_SRC, memory(p->a, engine(), const_cast<float*>(a))},
                          {DNNL_ARG_WEIGHTS, memory(p->b, engine(), const_cast<float*>(b))},
                          {DNNL_ARG_DST, memory(p->c, engine(), c)},
                          {DNNL_ARG_SCRATCHPAD, memory(p->scratch_desc, engine(), scratch.get())}});
}

}  // namespace

void onednn_gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
                 int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc) {
  // Measured with oneDNN 2.6: sgemm is faster but for a transposed B under few rows, which it packs
  // on one thread.
  const bool plain = alpha == 1.0f && (beta == 0.0f || beta == 1.0f);
  try {
    if (tb && !ta && m <= 1024 && plain)
      return matmul({m, n, k, ta, tb, lda, ldb, ldc, beta != 0.0f, omp_get_max_threads()}, a, b, c);
    const dnnl_status_t status =
        dnnl_sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    if (status == dnnl_success) return;
    throw Error("oneDNN refused a matrix product of (" + std::to_string(m) + ", " +
                std::to_string(k) + ") by (" + std::to_string(k) + ", " + std::to_string(n) +
                ") with status " + std::to_string(status));
  } catch (const dnnl::error& error) {
    throw Error(std::string("oneDNN failed in a matrix product: ") + error.what(),
                error.status == dnnl_out_of_memory ? ErrorKind::resource : ErrorKind::input);
  }
}

}  // namespace strata
