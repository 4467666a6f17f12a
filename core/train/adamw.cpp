#include "core/train/adamw.h"

#include <algorithm>
#include <cmath>

#include "core/tensor/convert.h"
#include "core/tensor/device.h"

namespace strata {

static const Op<AdamWArgs> adamw_op("adamw");
static const Op<SquaredNormArgs> squared_norm_op("squared_norm");
static const Op<SettleStepArgs> settle_step_op("settle_step");

static int copies(const Tensor& value) { return size_of(value.dtype) == 2 ? 3 : 2; }

AdamW::AdamW(ParamStore& params, AdamWConfig config) : params_(params), config_(config) {
  size_t bytes = 0;
  for (const NamedParam& p : params_.all()) {
    if (!p.slot->grad) continue;
    bytes += size_t(copies(p.slot->value)) * padded_bytes(p.slot->grad.bytes());
    device_ = p.slot->grad.device;
    dtype_ = p.slot->grad.dtype;
  }
  memory_ = Block(bytes, "optimizer state", device_);
  scalars_ = Block(sizeof(StepScalars) + kNormPartials * sizeof(double), "gradient norm", device_);
  char* next = static_cast<char*>(memory_.data());
  std::vector<AdamWPiece> pieces;
  for (const NamedParam& p : params_.all()) {
    const Tensor &grad = p.slot->grad, &value = p.slot->value;
    if (!grad) continue;
    State state{p.name, {}, {}, {}};
    const auto take = [&](Tensor& t) {
      t = view_of(next, grad.shape, grad.dtype, device_);
      next += padded_bytes(grad.bytes());
    };
    take(state.m);
    take(state.v);
    if (copies(value) == 3) take(state.master);
    const double decay = config_.decay_all || p.decays() ? config_.weight_decay : 0;
    for (int64_t at = 0; at < grad.numel(); at += kPieceNumbers) {
      const auto part = [at](const Tensor& t) -> void* {
        return t ? static_cast<char*>(t.data) + at * int64_t(size_of(t.dtype)) : nullptr;
      };
      pieces.push_back({part(value), part(state.master), part(grad), part(state.m), part(state.v),
                        decay, p.slot->options.lr_scale,
                        int32_t(std::min(kPieceNumbers, grad.numel() - at)), value.dtype});
    }
    states_.push_back(std::move(state));
  }
  n_pieces_ = int64_t(pieces.size());
  const size_t table = pieces.size() * sizeof(AdamWPiece);
  pieces_ = Block(table, "table of the optimizer", device_);
  driver_of(device_).upload(pieces_.data(), pieces.data(), table);
  take_values();
}

size_t AdamW::table_bytes(const ParamStore& params) {
  size_t pieces = 0;
  for (const NamedParam& p : params.all())
    if (p.trainable())
      pieces += size_t((p.slot->shape.numel() + kPieceNumbers - 1) / kPieceNumbers);
  return pieces * sizeof(AdamWPiece) + sizeof(StepScalars) + kNormPartials * sizeof(double);
}

void AdamW::take_values() {
  for (const State& state : states_) {
    if (!state.master) continue;
    const Tensor& value = params_.at(state.name).slot->value;
    const HostCopy now(value);
    std::vector<char> exact(state.master.bytes());
    convert_numbers(now->data, value.dtype, exact.data(), state.master.dtype,
                    size_t(value.numel()));
    assign_from_host(state.master, exact.data());
  }
}

void AdamW::write_scalars(const StepScalars& scalars) {
  driver_of(device_).upload(scalars_.data(), &scalars, sizeof scalars);
}

StepScalars AdamW::read_scalars() const {
  StepScalars scalars;
  driver_of(device_).download(&scalars, scalars_.data(), sizeof scalars);
  return scalars;
}

void AdamW::launch_norm(Context& cx) {
  cx.set_place("optimizer");
  auto* scalars = static_cast<StepScalars*>(scalars_.data());
  const Tensor sum = view_of(&scalars->squares, {1}, DType::f64, device_);
  const Tensor partial = view_of(scalars + 1, {kNormPartials}, DType::f64, device_);
  cx.zero(sum);
  if (const Tensor grads = params_.flat_grads())
    squared_norm_op(cx, grads.dtype, {grads, sum, partial});
}

void AdamW::launch_step(Context& cx) {
  cx.set_place("optimizer");
  adamw_op(cx, dtype_,
           {static_cast<const AdamWPiece*>(pieces_.data()), n_pieces_,
            static_cast<const StepScalars*>(scalars_.data()), config_.beta1, config_.beta2,
            config_.eps});
}

double AdamW::grad_norm(Context& cx) {
  launch_norm(cx);
  return std::sqrt(read_scalars().squares);
}

static StepScalars scalars_of(const AdamWConfig& config, int64_t step, double lr) {
  StepScalars scalars{};
  scalars.lr = lr;
  scalars.correction1 = 1 - std::pow(config.beta1, double(step));
  scalars.correction2 = 1 - std::pow(config.beta2, double(step));
  return scalars;
}

void AdamW::step(Context& cx, double lr, double clip) {
  StepScalars scalars = scalars_of(config_, ++steps_, lr);
  scalars.clip = clip;
  scalars.apply = 1;
  write_scalars(scalars);
  launch_step(cx);
}

void AdamW::begin(double lr, double max_norm) {
  StepScalars scalars = scalars_of(config_, steps_ + 1, lr);
  scalars.max_norm = max_norm;
  write_scalars(scalars);
}

void AdamW::update(Context& cx, Tensor loss) {
  launch_norm(cx);
  settle_step_op(cx, DType::f64, {static_cast<StepScalars*>(scalars_.data()), loss});
  launch_step(cx);
}

AdamW::Outcome AdamW::finish() {
  const StepScalars scalars = read_scalars();
  steps_ += scalars.apply != 0;
  return {scalars.norm, scalars.apply != 0};
}

double clip_factor(double norm, double max_norm) {
  return max_norm > 0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1.0;
}

}  // namespace strata
