#include "experiments/evaluate/op_checks.h"

#include <algorithm>
#include <cmath>

#include "core/ops/activation.h"
#include "core/ops/attend.h"
#include "core/ops/causal_conv1d.h"
#include "core/ops/lm_head_loss.h"
#include "core/ops/rms_norm.h"
#include "core/ops/rope.h"
#include "core/train/adamw.h"

namespace strata::golden {

namespace {

// The number that follows `word` in a text of the description: "causal, scale 0.07".
double number_after(const Json& about, const std::string& variant, const std::string& word) {
  const std::string& text =
      about.at("variants", "variants").at(variant, "variants").as_string("variants");
  const size_t at = text.find(word);
  if (at == std::string::npos) throw Error("the description of " + variant + " has no " + word);
  return std::stod(text.substr(at + word.size()));
}

Shape merged_heads(const Tensor& x) { return {x.shape[0], x.shape[1], x.shape[2] * x.shape[3]}; }

}  // namespace

void check_activations(OpCase& c) {
  for (const char* name : {"silu", "relu2", "gelu", "gelu_tanh", "softplus", "sigmoid"}) {
    const std::string prefix = std::string(name) + ".";
    if (!c.has(prefix + "y")) continue;
    c.begin(prefix);
    c.output("y", activation(c.cx(), c.in("x"), activation_of(name, "golden")));
    c.gradients();
  }
}

void check_norms(OpCase& c) {
  const double eps = c.about().at("eps", "norms").as_double("norms: eps");
  for (const bool one_plus : {false, true}) {
    const std::string rms = one_plus ? "rmsnorm_one_plus." : "rmsnorm.";
    if (c.has(rms + "y")) {
      c.begin(rms);
      RmsNormOptions options;
      options.eps = eps;
      options.weight_plus_one = one_plus;
      c.output("y", rms_norm(c.cx(), c.in("x"), c.in("weight"), options));
      c.gradients();
    }
    const std::string layer = one_plus ? "layernorm1p." : "layernorm.";
    if (c.has(layer + "y")) {
      c.begin(layer);
      const LayerNormOptions options{eps, one_plus};
      c.output("y", layer_norm(c.cx(), c.in("x"), c.in("weight"), c.in("bias"), options));
      c.gradients();
    }
  }
  for (const bool norm_first : {false, true}) {
    for (int64_t group = 1; group <= 65536; ++group) {
      const std::string prefix = std::string(norm_first ? "norm_then_gate" : "gate_then_norm") +
                                 ".group" + std::to_string(group) + ".";
      if (!c.has(prefix + "y")) continue;
      c.begin(prefix);
      RmsNormOptions options;
      options.eps = eps;
      options.group = group;
      c.output("y",
               gated_rms_norm(c.cx(), c.in("x"), c.in("z"), c.in("weight"), options, norm_first));
      c.gradients();
    }
  }
}

void check_attention(OpCase& c) {
  for (const std::string variant : {"", "scale.", "window.", "tail."}) {
    if (!c.has(variant + "y")) continue;
    c.begin(variant);
    const Tensor q4 = c.constant("in.q", Layout::same, 4);
    const Tensor k4 = c.constant("in.k", Layout::same, 4);
    const int64_t batch = q4.shape[0], kv_len = k4.shape[1], width = q4.shape[2] * q4.shape[3];
    AttendOptions options;
    options.n_heads = q4.shape[2];
    options.n_kv_heads = k4.shape[2];
    options.head_dim = q4.shape[3];
    if (variant == "scale.") options.scale = number_after(c.about(), variant, "scale ");
    if (variant == "window.") {
      options.window = int64_t(number_after(c.about(), variant, "itself and the ")) + 1;
    }
    const Tensor k = c.in("k", Layout::same, merged_heads(k4));
    const Tensor v = c.in("v", Layout::same, merged_heads(k4));
    if (variant != "tail.") {
      const Tensor q = c.in("q", Layout::same, merged_heads(q4));
      c.output("y", attend(c.cx(), q, k, v, options, Tensor{}));
      c.gradients();
      continue;
    }
    // Only the last queries: a variable of their own, whose gradient is padded with zeros.
    const int64_t last = c.constant(variant + "y", Layout::same, 4).shape[1];
    c.require(q4.shape[0] == batch && q4.shape[1] == kv_len && last <= kv_len,
              "in.q must be as long as in.k, and tail.y not longer");
    Tensor tail = c.cx().track(c.cx().alloc({batch, last, width}));
    const std::vector<double> all = numbers_of(q4);
    for (int64_t b = 0; b < batch; ++b) {
      for (int64_t i = 0; i < last * width; ++i) {
        const double x = all[size_t(((b + 1) * kv_len - last) * width + i)];
        if (tail.dtype == DType::f64) {
          tail.ptr<double>()[b * last * width + i] = x;
        } else {
          tail.ptr<float>()[b * last * width + i] = float(x);
        }
      }
    }
    c.output("y", attend(c.cx(), tail, k, v, options, Tensor{}));
    c.gradients();
    const std::vector<double> part = numbers_of(c.cx().grad(tail));
    std::vector<double> padded(all.size(), 0.0);
    for (int64_t b = 0; b < batch; ++b) {
      std::copy(part.begin() + b * last * width, part.begin() + (b + 1) * last * width,
                padded.begin() + ((b + 1) * kv_len - last) * width);
    }
    c.gradient("q", padded);
  }
}

void check_causal_conv1d(OpCase& c) {
  for (const std::string variant : {"", "linear_nobias.", "stateful."}) {
    if (!c.has(variant + "y")) continue;
    const bool is_stateful = variant == "stateful.", is_linear = variant == "linear_nobias.";
    c.begin(variant);
    for (const char* name : {"in.x", "in.weight"}) c.constant(name, Layout::same, 3);
    const Tensor x = c.in("x", Layout::swapped), weight = c.in("weight");
    const Tensor bias = is_linear ? Tensor{} : c.in("bias");
    CausalConv1dOptions options;
    options.silu = !is_linear;
    if (is_stateful) options.initial = c.in("initial_state", Layout::swapped);
    OpPass training(x.shape[0]);
    c.output("y", causal_conv1d(c.cx(), x, weight, bias, training, options), Layout::swapped);
    c.gradients();
    // Again as a prefill, which carries the state.
    c.begin(variant);
    c.cx().set_recording(false);
    OpPass prefill(x.shape[0], Mode::prefill);
    if (is_stateful) {
      const Tensor initial = c.constant("in.initial_state", Layout::swapped);
      c.require(initial.numel() == x.shape[0] * x.shape[2] * (weight.shape[2] - 1),
                "in.initial_state must be (batch, channels, kernel - 1)");
      prefill.set_state("conv", numbers_of(initial), initial.dtype);
    }
    const Tensor y =
        causal_conv1d(c.cx(), c.constant("in.x", Layout::swapped), c.constant("in.weight"),
                      is_linear ? Tensor{} : c.constant("in.bias"), prefill, {.silu = !is_linear});
    c.output("y", y, Layout::swapped);
    if (!c.has(variant + "final_state")) continue;
    // (batch, channels, kernel - 1)
    const Tensor stored = c.constant(variant + "final_state", Layout::same, 3);
    const std::vector<double> ours = prefill.state_values("conv");  // (batch, kernel - 1, channels)
    const int64_t channels = stored.shape[1], kept = stored.shape[2];
    c.require(stored.numel() == int64_t(ours.size()),
              variant + "final_state must have " + std::to_string(ours.size()) +
                  " values, got shape " + to_string(stored.shape));
    std::vector<double> got;
    for (int64_t b = 0; b < stored.shape[0]; ++b) {
      for (int64_t ch = 0; ch < channels; ++ch) {
        for (int64_t t = 0; t < kept; ++t) {
          got.push_back(ours.at(size_t((b * kept + t) * channels + ch)));
        }
      }
    }
    c.compare(variant + "final_state", got);
  }
}

void check_rope(OpCase& c) {
  const auto& variants = c.about().at("variants", "rope").as_object("rope: variants");
  for (const auto& member : variants) {
    if (!c.has(member.key + ".y")) continue;
    c.begin(member.key + ".");
    const Tensor x = c.constant("in.x", Layout::same, 4);
    const auto number = [&](const char* key, double fallback) {
      const Json* value = member.value.find(key);
      return value ? value->as_double(std::string("rope: ") + key) : fallback;
    };
    RopeOptions options;
    options.head_dim = x.shape[3];
    options.rotary_dim = int64_t(number("rotary_dim", double(x.shape[3])));
    options.theta = number("theta", options.theta);
    options.factor = number("factor", 0);
    options.low_freq_factor = number("low_freq_factor", options.low_freq_factor);
    options.high_freq_factor = number("high_freq_factor", options.high_freq_factor);
    options.original_max_position =
        int64_t(number("original_max_position_embeddings", double(options.original_max_position)));
    if (c.has(member.key + ".inv_freq")) {
      c.compare(member.key + ".inv_freq", rope_inverse_frequencies(options));
    }
    const Tensor heads = c.in("x", Layout::same, merged_heads(x));
    c.output("y", rope(c.cx(), heads, c.integers("positions"), options));
    c.gradients();
  }
}

namespace {

// The identity as an LM head's weight: its input is then the logits.
Tensor identity(OpCase& c, int64_t n) {
  const Tensor one = c.cx().alloc({n, n});
  for (int64_t i = 0; i < n * n; ++i) {
    const bool is_one = i % (n + 1) == 0;
    if (one.dtype == DType::f64) {
      one.ptr<double>()[i] = is_one;
    } else {
      one.ptr<float>()[i] = float(is_one);
    }
  }
  return one;
}

// The label of every position is the one given for the next; returns how many count.
int64_t shift_labels(OpCase& c, const Tensor& given, int64_t vocab, const Tensor& labels) {
  const int64_t batch = labels.shape[0], length = labels.shape[1];
  c.require(given.numel() == batch * length, "in.labels must have one label per position");
  int64_t count = 0;
  for (int64_t i = 0; i < batch * length; ++i) {
    const int32_t next = (i + 1) % length ? given.ptr<int32_t>()[i + 1] : kNoLabel;
    c.require(next == kNoLabel || (next >= 0 && next < vocab),
              "in.labels holds " + std::to_string(next) + ", expected -100 or 0 to " +
                  std::to_string(vocab - 1));
    labels.ptr<int32_t>()[i] = next;
    count += next != kNoLabel;
  }
  c.require(count > 0, "in.labels has no label that counts");
  return count;
}

// The mean loss over `count` labels and the gradient of in.logits; through the loss of the LM head.
struct MeanLoss {
  double value = 0;
  Tensor logits;
};
MeanLoss mean_loss(OpCase& c, const Tensor& labels, int64_t count, double z_loss) {
  const Tensor logits = c.in("logits");
  const Tensor inverse = c.cx().alloc({1}, DType::f64);
  *inverse.ptr<double>() = 1 / double(count);
  const LmHeadLoss out = lm_head_loss(c.cx(), logits, identity(c, logits.shape[2]), labels, inverse,
                                      {.z_loss = z_loss});
  return {*out.loss.ptr<double>() / double(count), logits};
}

// The mean of logsumexp^2 over all positions: what z_loss adds when every position has a label.
void check_z_loss(OpCase& c, const Shape& positions) {
  double values[2];
  std::vector<double> grads[2];
  for (const int z : {0, 1}) {
    c.begin("z_loss.");
    const Tensor labels = c.cx().alloc(positions, DType::i32);
    std::fill_n(labels.ptr<int32_t>(), labels.numel(), 0);
    const MeanLoss loss = mean_loss(c, labels, labels.numel(), z);
    c.cx().replay(0);
    values[z] = loss.value;
    grads[z] = numbers_of(c.cx().grad(loss.logits));
  }
  c.compare("z_loss", {values[1] - values[0]});
  for (size_t i = 0; i < grads[1].size(); ++i) grads[1][i] -= grads[0][i];
  c.gradient("logits", grads[1]);
}

}  // namespace

void check_cross_entropy(OpCase& c) {
  c.begin("");
  const Shape shape = c.constant("in.logits", Layout::same, 3).shape;  // (batch, len, vocab_size)
  const Shape positions = {shape[0], shape[1]};
  const Tensor labels = c.cx().alloc(positions, DType::i32);
  const int64_t count = shift_labels(c, c.integers("in.labels"), shape[2], labels);
  c.compare("loss", {mean_loss(c, labels, count, 0).value});
  c.gradients();
  if (c.has("z_loss")) check_z_loss(c, positions);
}

void check_adamw(OpCase& c) {
  const Json& about = c.about();
  const auto& betas = about.at("betas", "adamw").as_array("adamw: betas");
  c.require(betas.size() == 2, "betas must be two numbers in its description");
  const Json& decays = about.at("weight_decay", "adamw: weight_decay");
  c.begin("");
  c.cx().set_recording(false);
  const DType dtype = c.cx().dtype();
  const auto assign = [&](const Tensor& to, const std::string& stored) {
    const Tensor from = c.constant(stored);
    c.require(from.numel() == to.numel(), stored + " must have " + std::to_string(to.numel()) +
                                              " values, got shape " + to_string(from.shape));
    std::copy_n(static_cast<const char*>(from.data), from.bytes(), static_cast<char*>(to.data));
  };
  ParamStore params;
  double decay = 0;
  for (const char* name : {"w", "b"}) {
    const double own = decays.at(name, "adamw: weight_decay").as_double("adamw: weight_decay");
    c.require(own == 0 || decay == 0 || own == decay, "w and b must decay alike, or not at all");
    decay = std::max(decay, own);
    params.declare(name, c.constant(std::string("in.") + name).shape,
                   {.decay = own != 0 ? Decay::yes : Decay::no});
  }
  params.allocate(dtype, true, false);
  for (const NamedParam& p : params.all()) assign(p.slot->value, "in." + p.name);
  AdamW optimizer(params, {.beta1 = betas.at(0).as_double("beta"),
                           .beta2 = betas.at(1).as_double("beta"),
                           .eps = about.at("eps", "adamw").as_double("adamw: eps"),
                           .weight_decay = decay});
  const int64_t steps = about.at("steps", "adamw").as_int("adamw: steps");
  for (int64_t s = 1; s <= steps; ++s) {
    const std::string step = "step" + std::to_string(s) + ".";
    for (const NamedParam& p : params.all()) assign(p.slot->grad, step + "grad." + p.name);
    optimizer.step(c.cx(), about.at("lr", "adamw").as_double("adamw: lr"), 1);
    for (const NamedParam& p : params.all()) c.compare(step + p.name, numbers_of(p.slot->value));
    for (const AdamW::State& m : optimizer.states()) {
      c.compare(step + "exp_avg." + m.name, numbers_of(m.m));
      c.compare(step + "exp_avg_sq." + m.name, numbers_of(m.v));
    }
  }
  if (!c.has("clip.norm")) return;
  ParamStore clipped;
  for (int i = 0; c.has("clip.in." + std::to_string(i)); ++i) {
    clipped.declare(std::to_string(i), c.constant("clip.in." + std::to_string(i)).shape);
  }
  clipped.allocate(dtype, true, false);
  for (const NamedParam& p : clipped.all()) assign(p.slot->grad, "clip.in." + p.name);
  AdamW clip(clipped, {});
  const double norm = clip.grad_norm(c.cx());
  c.compare("clip.norm", {norm});
  const double factor = clip_factor(norm, about.at("clip_max_norm", "adamw").as_double("adamw"));
  for (const NamedParam& p : clipped.all()) {
    std::vector<double> grad = numbers_of(p.slot->grad);
    for (double& g : grad) g *= factor;
    c.compare("clip.out." + p.name, grad);
  }
}

}  // namespace strata::golden
