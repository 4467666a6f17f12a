#include "core/ops/lm_head_loss.h"

#include <algorithm>

#include "core/ops/arithmetic.h"
#include "core/ops/help.h"
#include "core/ops/linear.h"

namespace strata {

static const Op<CrossEntropyArgs> cross_entropy_op("cross_entropy");
static const Op<LinearArgs> linear_op("linear");
static const Op<LinearBackwardArgs> linear_backward_op("linear_backward");
static const Op<ScaleArgs> scale_op("scale");

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
  GradTarget dweight = with_gradient ? cx.grad_target(weight) : GradTarget{};

  ScratchScope scope(cx);
  const int64_t chunk = std::min(options.chunk, rows);
  const Tensor logits = cx.scratch({chunk, vocab_size}, h.dtype);
  const Tensor row_loss = cx.scratch({chunk}, DType::f64);
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t n = std::min(chunk, rows - begin);
    const Tensor h_chunk = row_range(h, begin, n), logits_chunk = row_range(logits, 0, n);
    linear_op(cx, h.dtype, {h_chunk, weight, {}, logits_chunk});
    cross_entropy_op(
        cx, h.dtype,
        {logits_chunk, element_range(labels, begin, n), with_gradient ? inverse_count : Tensor{},
         row_loss, out.loss, out.count, element_range(predictions, begin, n), options.logits_scale,
         options.softcap, options.z_loss});
    if (!with_gradient) continue;
    GradTarget dh_chunk = dh;
    if (dh.wanted) dh_chunk.grad = row_range(dh.grad, begin, n);
    linear_backward_op(cx, h.dtype, {h_chunk, weight, logits_chunk, dh_chunk, dweight, {}});
    dweight.accumulate = true;
  }
  return out;
}

LmHeadLoss cross_entropy(Context& cx, Tensor logits, Tensor labels, Tensor inverse_count,
                         const LmHeadOptions& options, Tensor predictions) {
  if (labels.dtype != DType::i32 || labels.numel() != logits.rows())
    throw Error(std::string(cx.place()) + ": cross_entropy: logits " + to_string(logits.shape) +
                " need " + std::to_string(logits.rows()) + " i32 labels, got " +
                name_of(labels.dtype) + " " + to_string(labels.shape));
  LmHeadLoss out{cx.alloc({1}, DType::f64), cx.alloc({1}, DType::i64)};
  cx.zero(out.loss);
  cx.zero(out.count);
  const bool with_gradient = cx.recording() && inverse_count;
  const GradTarget target = with_gradient ? cx.grad_target(logits) : GradTarget{};
  ScratchScope scope(cx);
  const Tensor z = cx.scratch({logits.rows(), logits.cols()}, logits.dtype);
  const Tensor row_loss = cx.scratch({logits.rows()}, DType::f64);
  scale_op(cx, z.dtype, {logits, z, 1, 0, false});
  cross_entropy_op(cx, z.dtype,
                   {z, labels, target.wanted ? inverse_count : Tensor{}, row_loss, out.loss,
                    out.count, predictions, options.logits_scale, options.softcap, options.z_loss});
  if (target.wanted) scale_op(cx, z.dtype, {z, target.grad, 1, 0, target.accumulate});
  return out;
}

STRATA_OP_HELP("lm_head_loss", R"(LM head and cross entropy in one, without tokens x vocab_size
  LmHeadLoss lm_head_loss(Context&, Tensor h, Tensor weight, Tensor labels, Tensor inverse_count,
                          {.logits_scale, .softcap, .z_loss, .chunk = 256}, Tensor predictions = {});
  h     (..., d)          weight (vocab_size, d)      labels one i32 a row, -100: none
  loss  (1,) f64, the sum over labelled rows          count (1,) i64
State: none. Gradient: h and weight at once, times inverse_count (1,) f64; absent: no gradient.
  #include "core/ops/lm_head_loss.h"
  LmHeadLoss l = lm_head_loss(cx, h, head_, labels, inverse_count);)")
STRATA_OP_HELP("cross_entropy", R"(cross entropy of given logits: the twin of lm_head_loss
  LmHeadLoss cross_entropy(Context&, Tensor logits, Tensor labels, Tensor inverse_count, options,
                           Tensor predictions = {});
  logits (..., vocab_size)        labels one i32 a row, -100: none
State: none. Gradient: logits, times inverse_count.
  #include "core/ops/lm_head_loss.h"
  LmHeadLoss l = cross_entropy(cx, logits, labels, inverse_count);)")

}  // namespace strata
