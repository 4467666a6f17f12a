// The least that a row must do, whoever does it: every operand is read or written once, causal
// halves count once, nothing is recomputed or stored in between.
#pragma once

#include <cstdint>
#include <string>

namespace strata::bench {

struct Work {
  double flops = 0, bytes = 0;
};
inline Work operator+(const Work& a, const Work& b) {
  return {a.flops + b.flops, a.bytes + b.bytes};
}

// What the device in hand reaches, measured in this run.
struct Ceilings {
  std::string card;
  double flops = 0;  // bf16 matmul, per second
  double bytes = 0;  // reading memory, per second
};

// Seconds that `work` takes at the ceilings: the longer of the two.
double floor_seconds(const Work& work, const Ceilings& ceilings);
// Whether the bytes and not the flops set that floor.
bool bound_by_bytes(const Work& work, const Ceilings& ceilings);

// A Mamba-2 mixer. `element`: bytes of an activation, here and below.
struct ScanShape {
  int64_t batch = 1, seq_len = 1;
  int64_t heads = 1, head_dim = 64, groups = 1, d_state = 128, chunk = 128, kernel = 4;

  int64_t tokens() const { return batch * seq_len; }
  int64_t d_inner() const { return heads * head_dim; }
  int64_t d_bc() const { return groups * d_state; }
  int64_t channels() const { return d_inner() + 2 * d_bc(); }           // of the convolution
  int64_t projected() const { return d_inner() + channels() + heads; }  // in_proj's output
};
Work scan_forward_work(const ScanShape& s, int64_t element);
Work scan_backward_work(const ScanShape& s, int64_t element);
// Everything between in_proj and out_proj.
Work mixer_forward_work(const ScanShape& s, int64_t element);
Work mixer_backward_work(const ScanShape& s, int64_t element);
Work conv_forward_work(const ScanShape& s, int64_t element);
Work conv_backward_work(const ScanShape& s, int64_t element);
Work gated_norm_forward_work(const ScanShape& s, int64_t element);
Work gated_norm_backward_work(const ScanShape& s, int64_t element);
// One token for each of `batch` sequences; the scan's state is of 4 bytes an element.
Work state_update_work(const ScanShape& s, int64_t element);
Work conv_update_work(const ScanShape& s, int64_t element);

struct AttentionShape {
  int64_t batch = 1, seq_len = 1;  // in decode: the context
  int64_t heads = 1, kv_heads = 1, head_dim = 64;

  int64_t width() const { return heads * head_dim; }
  int64_t kv_width() const { return kv_heads * head_dim; }
};
Work attention_forward_work(const AttentionShape& s, int64_t element);  // causal
Work attention_backward_work(const AttentionShape& s, int64_t element);
Work attention_decode_work(const AttentionShape& s, int64_t element);

// y (rows, out) = x (rows, in) W^T, `weights` such W with rows / weights rows each.
Work linear_work(int64_t rows, int64_t out, int64_t in, int64_t element, int64_t weights = 1);

}  // namespace strata::bench
