// attention — softmax attention with grouped key-value heads (MHA, GQA arXiv 2305.13245, MQA).
//   q, k, v = W_q x, W_k x, W_v x;  q, k = rope(rms(q)), rope(rms(k)) where asked for
//   y = W_o softmax(mask(scale q k^T)) v
#include "core/contract/plugin.h"
#include "core/ops/attend.h"
#include "core/ops/linear.h"
#include "core/ops/rms_norm.h"
#include "core/ops/rope.h"

#include <cmath>

namespace strata::attention {

// The widest usual head (64 or a power of two below) that divides d_model.
static int64_t usual_head_dim(int64_t d_model) {
  int64_t dim = 64;
  while (d_model % dim) dim /= 2;
  return dim;
}

class Attention final : public Layer {
 public:
  explicit Attention(const Config& c) {
    read_heads(c);
    read_rope(c);
    attend_.causal = c.get("causal", true, "false: tokens also see what follows; cannot decode");
    attend_.window = c.get("window", 0, "each token sees itself and window - 1 before; 0: all");
    attend_.scale = c.get("scale", 0.0, "factor on q k^T; 0: 1 / sqrt(head_dim)");
    attend_.softcap = c.get("softcap", 0.0, "scores become softcap tanh(score / softcap); 0: off");
    const bool qk_norm = c.get("qk_norm", false, "RMSNorm over each head of q and k");
    norm_.weight_plus_one = c.get("qk_norm_plus_one", false, "the stored norm weights are w - 1");
    norm_.eps = c.get("norm_eps", 1e-5, "added to the mean square in qk_norm");
    const bool bias = c.get("bias", false, "biases on all four projections");
    const bool qkv_bias = c.get("qkv_bias", bias, "biases on q, k and v");
    const bool o_bias = c.get("o_bias", bias, "bias on the output projection");
    if (attend_.window < 0 || attend_.softcap < 0 || attend_.scale < 0)
      throw Error(c.place() + ": window, softcap and scale must not be negative");

    const int64_t dim = attend_.head_dim;
    const int64_t q_width = attend_.n_heads * dim, kv_width = attend_.n_kv_heads * dim;
    const ParamOptions zeros{.init = Init::zeros(), .decay = Decay::no};
    q_ = param("q_proj", {q_width, c.d_in()}, {.role = "heads,in"});
    k_ = param("k_proj", {kv_width, c.d_in()}, {.role = "heads,in"});
    v_ = param("v_proj", {kv_width, c.d_in()}, {.role = "heads,in"});
    o_ = param("o_proj", {c.d_model(), q_width},
               {.init_scale = 1 / std::sqrt(double(c.n_blocks())), .role = "out,heads"});
    if (qkv_bias) {
      q_bias_ = param("q_proj.bias", {q_width}, zeros);
      k_bias_ = param("k_proj.bias", {kv_width}, zeros);
      v_bias_ = param("v_proj.bias", {kv_width}, zeros);
    }
    if (o_bias) o_bias_ = param("o_proj.bias", {c.d_model()}, zeros);
    if (qk_norm) {
      const ParamOptions one{.init = norm_.weight_plus_one ? Init::zeros() : Init::ones(),
                             .keep = Keep::accum,
                             .decay = Decay::no};
      q_norm_ = param("q_norm.weight", {dim}, one);
      k_norm_ = param("k_norm.weight", {dim}, one);
    }
  }

  Tensor forward(Context& cx, Tensor x, Pass& pass) override {  // (batch, seq_len, d_model)
    // (batch, seq_len, n_heads * head_dim); k, v: (batch, seq_len, n_kv_heads * head_dim)
    Tensor q = place_in_sequence(cx, linear(cx, x, q_, q_bias_), q_norm_, pass);
    Tensor k = place_in_sequence(cx, linear(cx, x, k_, k_bias_), k_norm_, pass);
    Tensor v = linear(cx, x, v_, v_bias_);
    Tensor y = attend(cx, q, k, v, attend_, pass);
    tap(cx, "heads_out", y);
    return linear(cx, y, o_, o_bias_);
  }

 private:
  void read_heads(const Config& c) {
    AttendOptions& a = attend_;
    const bool given = c.has("n_heads");
    a.n_heads = c.size("n_heads", std::max<int64_t>(1, c.d_model() / usual_head_dim(c.d_model())),
                       "query heads");
    a.head_dim =
        c.size("head_dim",
               given ? std::max<int64_t>(1, c.d_model() / a.n_heads) : usual_head_dim(c.d_model()),
               "width of a head; n_heads * head_dim need not be d_model");
    a.n_kv_heads = c.size("n_kv_heads", a.n_heads, "key-value heads, a divisor of n_heads");
    if (given && !c.has("head_dim") && c.d_model() % a.n_heads)
      throw Error(c.place() + ": n_heads = " + std::to_string(a.n_heads) +
                  " does not divide d_model = " + std::to_string(c.d_model()) +
                  "; choose another number or set head_dim");
    if (a.n_heads % a.n_kv_heads)
      throw Error(c.place() + ": n_kv_heads must divide n_heads = " + std::to_string(a.n_heads) +
                  ", got " + std::to_string(a.n_kv_heads));
  }

  void read_rope(const Config& c) {
    has_rope_ =
        c.get("rope", false, "rotary positions; without them order comes from other blocks");
    rope_.theta = c.get("rope_theta", 10000.0, "base of the wave lengths");
    const double fraction = c.get("rope_fraction", 1.0, "part of each head that is rotated");
    rope_.factor = c.get("rope_factor", 0.0, "Llama 3 scaling of long waves; 0: none");
    rope_.low_freq_factor = c.get("rope_low_freq_factor", 1.0, "Llama 3 scaling");
    rope_.high_freq_factor = c.get("rope_high_freq_factor", 4.0, "Llama 3 scaling");
    rope_.original_max_position =
        c.size("rope_original_max_position", 8192, "tokens of the context before Llama 3 scaling");
    rope_.head_dim = attend_.head_dim;
    rope_.rotary_dim = std::llround(fraction * double(attend_.head_dim));
    if (!has_rope_) return;
    if (!(rope_.theta > 0) || rope_.rotary_dim < 2 || rope_.rotary_dim % 2 ||
        rope_.rotary_dim > attend_.head_dim)
      throw Error(c.place() +
                  ": rope needs rope_theta > 0 and an even number of rotated elements, " +
                  "got rope_theta = " + std::to_string(rope_.theta) +
                  " and rope_fraction * head_dim = " + std::to_string(rope_.rotary_dim) + " of " +
                  std::to_string(attend_.head_dim));
  }

  // Norm and rotation of queries or keys: (batch, seq_len, heads * head_dim), as x.
  Tensor place_in_sequence(Context& cx, Tensor x, Tensor norm, Pass& pass) const {
    if (norm) {
      const Shape heads{x.shape[0], x.shape[1], x.cols() / attend_.head_dim, attend_.head_dim};
      x = cx.reshape(rms_norm(cx, cx.reshape(x, heads), norm, norm_), x.shape);
    }
    return has_rope_ ? rope(cx, x, pass.positions(), rope_) : x;
  }

  AttendOptions attend_;
  RopeOptions rope_;
  RmsNormOptions norm_;
  bool has_rope_ = false;
  Param q_, k_, v_, o_, q_bias_, k_bias_, v_bias_, o_bias_, q_norm_, k_norm_;
};

// w: windowed attention, as in RecurrentGemma and its kin.
STRATA_LAYER(Attention, '*', "attention", "w{window=1024}")

}  // namespace strata::attention
