#include "tests/bench/device/work.h"

#include <algorithm>

namespace strata::bench {

double floor_seconds(const Work& work, const Ceilings& c) {
  return std::max(work.flops / c.flops, work.bytes / c.bytes);
}

bool bound_by_bytes(const Work& work, const Ceilings& c) {
  return work.bytes / c.bytes > work.flops / c.flops;
}

// Per chunk of Q tokens: C B^T of each group and its product with x of each head, both causal
// halves; the state of each head, built and read.
Work scan_forward_work(const ScanShape& s, int64_t element) {
  const double t = double(s.tokens()), q = double(s.chunk), inner = double(s.d_inner()),
               bc = double(s.d_bc()), n = double(s.d_state), e = double(element);
  return {t * (q * bc + q * inner + 4 * n * inner), e * t * (2 * inner + 2 * bc + double(s.heads))};
}

// x, dt, B, C, dy in; dx, ddt, dB, dC out; C B^T, chunk states and their reading once more.
Work scan_backward_work(const ScanShape& s, int64_t element) {
  const double t = double(s.tokens()), q = double(s.chunk), inner = double(s.d_inner()),
               bc = double(s.d_bc()), n = double(s.d_state), e = double(element);
  return {t * (3 * q * bc + 2 * q * inner + 10 * n * inner),
          e * t * (3 * inner + 4 * bc + 2 * double(s.heads))};
}

Work mixer_forward_work(const ScanShape& s, int64_t element) {
  const double t = double(s.tokens()), e = double(element);
  return {scan_forward_work(s, element).flops, e * t * double(s.projected() + s.d_inner())};
}

Work mixer_backward_work(const ScanShape& s, int64_t element) {
  const double t = double(s.tokens()), e = double(element);
  return {scan_backward_work(s, element).flops, e * t * double(2 * s.projected() + s.d_inner())};
}

Work conv_forward_work(const ScanShape& s, int64_t element) {
  return {0, 2.0 * double(element) * double(s.tokens()) * double(s.channels())};
}

Work conv_backward_work(const ScanShape& s, int64_t element) {
  return {0, 3.0 * double(element) * double(s.tokens()) * double(s.channels())};
}

Work gated_norm_forward_work(const ScanShape& s, int64_t element) {
  return {0, 3.0 * double(element) * double(s.tokens()) * double(s.d_inner())};
}

Work gated_norm_backward_work(const ScanShape& s, int64_t element) {
  return {0, 5.0 * double(element) * double(s.tokens()) * double(s.d_inner())};
}

Work state_update_work(const ScanShape& s, int64_t element) {
  const double b = double(s.batch), inner = double(s.d_inner()), n = double(s.d_state);
  return {6 * b * inner * n,
          2 * b * inner * n * 4 +
              double(element) * b * (2 * inner + 2 * double(s.d_bc()) + double(s.heads))};
}

// The tail is read and replaced; x, y; the taps and the bias.
Work conv_update_work(const ScanShape& s, int64_t element) {
  const double c = double(s.channels()), e = double(element), k = double(s.kernel);
  return {0, double(s.batch) * c * e * (2 * (k - 1) + 2) + c * (k * e + 4)};
}

Work attention_forward_work(const AttentionShape& s, int64_t element) {
  const double b = double(s.batch), l = double(s.seq_len), e = double(element);
  return {2 * b * l * l * double(s.width()), e * b * l * 2 * double(s.width() + s.kv_width())};
}

Work attention_backward_work(const AttentionShape& s, int64_t element) {
  const Work forward = attention_forward_work(s, element);
  return {2.5 * forward.flops, 2 * forward.bytes + double(element) * double(s.batch) *
                                                       double(s.seq_len) * double(s.width())};
}

Work attention_decode_work(const AttentionShape& s, int64_t element) {
  const double tokens = double(s.batch) * double(s.seq_len);
  return {4 * tokens * double(s.width()), 2 * double(element) * tokens * double(s.kv_width())};
}

Work linear_work(int64_t rows, int64_t out, int64_t in, int64_t element, int64_t weights) {
  const double m = double(rows), n = double(out), k = double(in);
  return {2 * m * n * k, double(element) * (double(weights) * n * k + m * k + m * n)};
}

}  // namespace strata::bench
