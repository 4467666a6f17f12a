#include "core/train/adamw.h"

#include <algorithm>
#include <cmath>

#include "core/tensor/device.h"

namespace strata {

static const Op<AdamWArgs> adamw_op("adamw");
static const Op<SquaredNormArgs> squared_norm_op("squared_norm");

static size_t padded(size_t bytes) { return (bytes + 63) / 64 * 64; }

AdamW::AdamW(ParamStore& params, AdamWConfig config) : params_(params), config_(config) {
  size_t bytes = 0;
  Device device;
  for (const NamedParam& p : params_.all()) {
    if (!p.slot->grad) continue;
    bytes += 2 * padded(p.slot->grad.bytes());
    device = p.slot->grad.device;
  }
  memory_ = Block(bytes, "optimizer state", device);
  norm_ = Block((1 + kNormPartials) * sizeof(double), "gradient norm", device);
  char* next = static_cast<char*>(memory_.data());
  for (const NamedParam& p : params_.all()) {
    const Tensor& grad = p.slot->grad;
    if (!grad) continue;
    Moments moments{p.name, {}, {}};
    for (Tensor* t : {&moments.m, &moments.v}) {
      *t = view_of(next, grad.shape, grad.dtype, grad.device);
      next += padded(grad.bytes());
    }
    moments_.push_back(std::move(moments));
  }
}

double AdamW::grad_norm(Context& cx) {
  const Tensor total = view_of(norm_.data(), {1}, DType::f64, norm_.device());
  const Tensor partial =
      view_of(static_cast<double*>(norm_.data()) + 1, {kNormPartials}, DType::f64, norm_.device());
  cx.zero(total);
  for (const NamedParam& p : params_.all())
    if (p.slot->grad) squared_norm_op(cx, p.slot->grad.dtype, {p.slot->grad, total, partial});
  return std::sqrt(*HostCopy(total)->ptr<double>());
}

void AdamW::step(Context& cx, double lr, double clip) {
  ++steps_;
  const double correction1 = 1 - std::pow(config_.beta1, double(steps_));
  const double correction2 = 1 - std::pow(config_.beta2, double(steps_));
  size_t i = 0;
  for (const NamedParam& p : params_.all()) {
    if (!p.slot->grad) continue;
    const Moments& moments = moments_[i++];
    const double decay = config_.decay_all || p.decays() ? config_.weight_decay : 0;
    adamw_op(cx, p.slot->grad.dtype,
             {p.slot->value, p.slot->grad, moments.m, moments.v, lr * p.slot->options.lr_scale,
              config_.beta1, config_.beta2, config_.eps, decay, clip, correction1, correction2});
  }
}

double clip_factor(double norm, double max_norm) {
  return max_norm > 0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1.0;
}

}  // namespace strata
