#include "layers/moe/route.h"

#include "core/ops/row_blocks.h"

namespace strata::moe {

static const Op<RouteArgs> route_op("moe_route");
static const Op<RouteBackwardArgs> route_backward_op("moe_route_backward");
static const Op<SortArgs> sort_op("moe_sort");
static const Op<CombineArgs> combine_op("moe_combine");
static const Op<CombineBackwardArgs> combine_backward_op("moe_combine_backward");
static const Op<BalanceArgs> balance_op("moe_balance");
static const Op<BalanceBackwardArgs> balance_backward_op("moe_balance_backward");
static const Op<EvenOutArgs> even_out_op("moe_even_out");

Routes route(Context& cx, Tensor logits, Tensor bias, const RouteOptions& o) {
  const int64_t tokens = logits.rows();
  const Tensor scores = cx.alloc(logits.shape, logits.dtype);
  const Tensor index = cx.alloc({tokens, o.top_k}, DType::i32);
  const Tensor weights = cx.track(cx.alloc({tokens, o.top_k}, logits.dtype));
  route_op(cx, logits.dtype, {logits, bias, scores, weights, index, o});
  cx.record([=](Context& cx) {
    const Tensor dweights = cx.grad(weights);
    if (!dweights) return;
    const GradTarget dlogits = cx.grad_target(logits);
    if (dlogits.wanted)
      route_backward_op(cx, logits.dtype, {scores, weights, index, dweights, dlogits, o});
  });
  return {weights, index};
}

Sorted sort_by_expert(Context& cx, Tensor index, int64_t n_experts) {
  const Sorted s{cx.alloc({n_experts + 1}, DType::i32), cx.alloc({index.numel()}, DType::i32),
                 cx.alloc(index.shape, DType::i32)};
  sort_op(cx, DType::i32, {index, s.offsets, s.token, s.row});
  return s;
}

Tensor combine(Context& cx, Tensor x, Tensor weights, Tensor row) {
  Tensor y = cx.track(cx.alloc({weights.rows(), x.cols()}, x.dtype));
  combine_op(cx, x.dtype, {x, weights, row, y});
  cx.record([=](Context& cx) {
    const Tensor dy = cx.grad(y);
    if (!dy) return;
    const GradTarget dx = cx.grad_target(x), dweights = cx.grad_target(weights);
    combine_backward_op(cx, x.dtype, {x, weights, row, dy, dx, dweights});
  });
  return y;
}

Tensor balance_loss(Context& cx, Tensor logits, Tensor index) {
  const Tensor chosen = cx.alloc({logits.cols()}, logits.dtype);
  const Tensor loss = cx.track(cx.alloc({1}, logits.dtype));
  {
    ScratchScope scope(cx);
    const Tensor partial =
        cx.scratch({row_blocks(logits.rows()).count, logits.cols()}, logits.dtype);
    balance_op(cx, logits.dtype, {logits, index, chosen, partial, loss});
  }
  cx.record([=](Context& cx) {
    const Tensor dloss = cx.grad(loss);
    if (!dloss) return;
    const GradTarget dlogits = cx.grad_target(logits);
    if (dlogits.wanted) balance_backward_op(cx, logits.dtype, {logits, chosen, dloss, dlogits});
  });
  return loss;
}

void even_out(Context& cx, Tensor bias, const std::vector<double>& offsets, double rate) {
  even_out_op(cx, bias.dtype, {bias, offsets.data(), rate});
}

}  // namespace strata::moe
