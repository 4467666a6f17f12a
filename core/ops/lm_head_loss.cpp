#include "core/ops/lm_head_loss.h"

#include <algorithm>

#include "core/ops/linear.h"

namespace strata {

static const Op<CrossEntropyArgs> cross_entropy_op("cross_entropy");
static const Op<LinearArgs> linear_op("linear");
static const Op<LinearBackwardArgs> linear_backward_op("linear_backward");

// Rows [begin, begin + n) of a tensor seen as a matrix.
static Tensor row_range(Tensor x, int64_t begin, int64_t n) {
  const int64_t cols = x.cols();
  if (x.data) x.data = static_cast<char*>(x.data) + begin * x.pitch * int64_t(size_of(x.dtype));
  x.shape = {n, cols};
  return x;
}

static Tensor element_range(Tensor x, int64_t begin, int64_t n) {
  if (!x) return x;
  if (x.data) x.data = static_cast<char*>(x.data) + begin * int64_t(size_of(x.dtype));
  x.shape = {n};
  x.pitch = n;
  return x;
}

LmHeadLoss lm_head_loss(Context& cx, Tensor h, Tensor weight, Tensor labels, Tensor inverse_count,
                        const LmHeadOptions& options, Tensor predictions) {
  const int64_t rows = h.rows(), vocab_size = weight.shape[0];
  if (h.cols() != weight.shape[1] || labels.numel() != rows)
    throw Error(std::string(cx.place()) + ": h must be (rows, " + std::to_string(weight.shape[1]) +
                ") with one label a row, got " + to_string(h.shape) + " and labels " +
                to_string(labels.shape));
  LmHeadLoss out{cx.alloc({1}, DType::f64), cx.alloc({1}, DType::i64)};
  cx.zero(out.loss);
  cx.zero(out.count);
  const bool with_gradient = cx.recording() && inverse_count;
  const GradTarget dh = with_gradient ? cx.grad_target(h) : GradTarget{};
  const GradTarget dweight = with_gradient ? cx.grad_target(weight) : GradTarget{};

  ScratchScope scope(cx);
  const int64_t chunk = std::min(options.chunk, rows);
  const Tensor logits = cx.scratch({chunk, vocab_size}, h.dtype);
  const Tensor row_loss = cx.scratch({chunk}, DType::f64);
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t n = std::min(chunk, rows - begin);
    const Tensor h_chunk = row_range(h, begin, n), logits_chunk = row_range(logits, 0, n);
    linear_op(cx, h.dtype, {h_chunk, weight, {}, logits_chunk});
    cross_entropy_op(cx, h.dtype,
                     {logits_chunk, element_range(labels, begin, n),
                      with_gradient ? inverse_count : Tensor{}, row_loss, out.loss, out.count,
                      element_range(predictions, begin, n), options.logits_scale, options.softcap});
    if (!with_gradient) continue;
    GradTarget dh_chunk = dh;
    if (dh.wanted) dh_chunk.grad = row_range(dh.grad, begin, n);
    linear_backward_op(cx, h.dtype, {h_chunk, weight, logits_chunk, dh_chunk, dweight, {}});
  }
  return out;
}

}  // namespace strata
