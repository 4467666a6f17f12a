#include "plugins/kit/bed.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/contract/plugin.h"
#include "core/tensor/convert.h"
#include "core/tensor/device.h"

namespace strata::kit {

constexpr size_t kArena = size_t{1} << 30;  // reserved, touched only as far as needed
constexpr size_t kPoisoned = size_t{1} << 20;

Site::Site(Device device, DType dtype, Mode mode, KitState* state, bool planning)
    : memory(planning ? std::make_unique<Memory>(device)
                      : std::make_unique<Memory>(device, kArena, kArena)),
      cx(*memory, dtype),
      pass(cx, mode, state) {
  if (planning) return;
  static const std::vector<unsigned char> kNotANumbers(kPoisoned, 0xff);
  for (Arena* arena : {&memory->activations, &memory->scratch}) {
    const size_t mark = arena->mark();
    driver_of(device).upload(arena->take(kPoisoned, "kit"), kNotANumbers.data(), kPoisoned);
    arena->release(mark);
    arena->reset_peak();
  }
}

Tensor Site::on_device(std::vector<int32_t>& values, const Shape& shape) {
  if (values.empty()) return {};
  const bool planning = cx.planning();
  if (cx.device().kind == DeviceKind::cpu)
    return view_of(planning ? nullptr : values.data(), shape, DType::i32);
  const Tensor t = cx.alloc(shape, DType::i32);
  if (!planning) assign_from_host(t, values.data());
  return t;
}

Bed::Bed(const LayerChoice& choice, DType dtype, uint64_t seed) : choice_(choice), dtype_(dtype) {
  const std::string name = choice.factory->name_of(choice.symbol);
  place_ = "layer '" + choice.symbol + "'" + (name == choice.symbol ? "" : " (" + name + ")");
  const LayerConfig config(choice.d_model, 1, choice.options, place_);
  layer_ = choice.factory->create(choice.symbol, config);
  config.refuse_unread();
  own_backward_ = choice.factory->own_hooks(choice.symbol) & kBackward;
  store_.adopt("", choice.symbol, *layer_);
  store_.allocate(dtype, true, false, choice.device);
  store_.initialize(seed);
  for (ParamSlot& p : layer_->params()) {
    Values v = values_of(p.value);
    Random random(seed, stream_of("noise of " + p.name));
    for (double& x : v) {  // so that no parameter hides behind a zero or a one
      const double noise = random.normal();
      if (!p.is_buffer) x += (x == 0 ? 0.1 : 0.02) * noise;
      x = double(float(x));
    }
    assign(p.value, v);
  }
}

Values Bed::random_values(int64_t n, uint64_t seed) const {
  Random random(seed, stream_of("kit values"));
  Values v(static_cast<size_t>(n));
  for (double& x : v) x = double(float(random.normal()));
  return v;
}

Batch Bed::random_batch(int64_t batch, int64_t seq_len, uint64_t seed) const {
  return {batch, seq_len, random_values(batch * seq_len * d_model(), seed), {}};
}

std::unique_ptr<Site> Bed::enter(const Batch& in, Mode mode, KitState* state, bool recording,
                                 bool planning, bool constant_input) {
  auto site = std::make_unique<Site>(choice_.device, dtype_, mode, state, planning);
  Context& cx = site->cx;
  cx.set_place(place_);
  cx.set_aux_scale(aux_scale_);
  for (int64_t b = 0; b < in.batch; ++b) {
    int32_t at = state ? state->lengths()[b] : 0;
    for (int64_t t = 0; t < in.seq_len; ++t) {
      const int64_t i = b * in.seq_len + t;
      if (t > 0 && !in.seq_idx.empty() && in.seq_idx[i] != in.seq_idx[i - 1]) at = 0;
      site->positions.push_back(at++);
    }
  }
  site->seq_idx = in.seq_idx;
  const Shape places{in.batch, in.seq_len};
  site->pass.set_places(site->on_device(site->positions, places),
                        site->on_device(site->seq_idx, places));
  // d_model comes from x, so that a check may offer a wrong one.
  const int64_t width = int64_t(in.x.size()) / (in.batch * in.seq_len);
  cx.set_recording(recording);
  site->x = cx.alloc({in.batch, in.seq_len, width}, dtype_);
  if (!planning) assign(site->x, in.x);
  if (!planning && site->x.bytes() > 0) {
    const HostCopy x(site->x);
    site->before.assign(x->ptr<unsigned char>(), x->ptr<unsigned char>() + x->bytes());
  }
  if (!constant_input) site->x = cx.track(site->x);
  site->pass.publish("embed", site->x);
  site->pass.tape_begin = cx.tape_size();
  site->pass.input = site->x;
  site->y = layer_->forward(cx, site->x, site->pass);
  site->pass.bring_back();
  site->pass.output = site->y;
  if (!(site->y.shape == site->x.shape) || site->y.dtype != dtype_)
    throw Error(place_ + ": forward gives " + to_string(site->y.shape) + " " +
                strata::name_of(site->y.dtype) + " for x " + to_string(site->x.shape) + " " +
                strata::name_of(dtype_) + "; it must keep shape and dtype");
  return site;
}

std::unique_ptr<Site> Bed::forward(const Batch& in, bool train, bool constant_input) {
  return enter(in, Mode::train, nullptr, train && (!own_backward_ || force_recording_), false,
               constant_input);
}

Values Bed::backward(Site& site, const Values& dy, bool replay) {
  Tensor seed = site.cx.alloc(site.y.shape, dtype_);
  if (!site.cx.planning()) assign(seed, dy);
  const Tensor dx = replay ? layer_->Layer::backward(site.cx, seed, site.pass)
                           : layer_->backward(site.cx, seed, site.pass);
  if (dx && !(dx.shape == site.x.shape))
    throw Error(place_ + ": backward gives dx " + to_string(dx.shape) + " for x " +
                to_string(site.x.shape));
  if (!dx || site.cx.planning()) return Values(size_t(site.x.numel()), 0.0);
  return values_of(dx);
}

Values Bed::infer(const Batch& in, double* auxiliary) {
  const auto site = enter(in, Mode::train, nullptr, false, false, false);
  if (auxiliary) {
    *auxiliary = 0;
    for (const auto& loss : site->cx.aux_losses())
      *auxiliary += aux_scale_ * loss.weight * values_of(loss.value)[0];
  }
  return values_of(site->y);
}

Gradients Bed::train(const Batch& in, const Values& dy, bool replay) {
  zero_grads();
  force_recording_ = replay;
  const auto site = forward(in, true);
  force_recording_ = false;
  Gradients g;
  g.y = values_of(site->y);
  g.dx = backward(*site, dy, replay);
  g.params = grads();
  return g;
}

Values Bed::step(KitState& state, Mode mode, const Batch& in) {
  state.prepare(in.seq_len);
  const auto site = enter(in, mode, &state, false, false, false);
  state.advance(in.seq_len);
  return values_of(site->y);
}

std::vector<size_t> Bed::peaks(const Batch& in, bool planning) {
  const auto site = enter(in, Mode::train, nullptr, !own_backward_, planning, false);
  std::vector<size_t> peaks = {site->memory->activations.peak(), site->memory->scratch.peak()};
  backward(*site, Values(planning ? 0 : in.x.size(), 0.5));
  for (const Arena* arena : {&site->memory->activations, &site->memory->scratch})
    peaks.push_back(arena->peak());
  return peaks;
}

std::vector<Values> Bed::grads() const {
  std::vector<Values> all;
  for (const ParamSlot& p : layer_->params())
    all.push_back(p.is_buffer || !p.grad ? Values{} : values_of(p.grad));
  return all;
}

// --------------------------------------------------------------------------------------- numbers
Values values_of(Tensor tensor) { return numbers_of(tensor); }

void assign(Tensor t, const Values& values) {
  std::vector<char> row(size_t(t.cols()) * size_of(t.dtype));
  for (int64_t r = 0; r < t.rows(); ++r) {
    convert_numbers(values.data() + r * t.cols(), DType::f64, row.data(), t.dtype,
                    size_t(t.cols()));
    Tensor to = view_of(static_cast<char*>(t.data) + r * t.pitch * int64_t(size_of(t.dtype)),
                        {t.cols()}, t.dtype, t.device);
    assign_from_host(to, row.data());
  }
}

double difference(const Values& a, const Values& b, double floor) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double most = 0, scale = floor;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i]) || !std::isfinite(b[i]))
      return std::numeric_limits<double>::infinity();
    most = std::max(most, std::abs(a[i] - b[i]));
    scale = std::max(scale, std::abs(b[i]));
  }
  return most / scale;
}

Batch slice(const Batch& in, int64_t begin, int64_t end) {
  const int64_t width = int64_t(in.x.size()) / (in.batch * in.seq_len);
  Batch out{in.batch, end - begin, {}, {}};
  for (int64_t b = 0; b < in.batch; ++b) {
    const auto row = in.x.begin() + b * in.seq_len * width;
    out.x.insert(out.x.end(), row + begin * width, row + end * width);
  }
  return out;
}

Batch row_of(const Batch& in, int64_t b) {
  const int64_t numbers = int64_t(in.x.size()) / in.batch;
  Batch out{1, in.seq_len, {}, {}};
  out.x.assign(in.x.begin() + b * numbers, in.x.begin() + (b + 1) * numbers);
  return out;
}

}  // namespace strata::kit
