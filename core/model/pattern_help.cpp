// The text of `strata help pattern`.
#include "core/model/pattern.h"

namespace strata {

std::string pattern_help() {
  return R"(A pattern is a string that names the blocks of a stack, one symbol per block.
Each block is h = h + layer(norm(h)). White space is ignored; every Megatron string is valid.

  M  m  *  w  -  E  G  c   mamba2, mamba1, attention, windowed attention, mlp, moe,
                           gated_delta_net, short_conv; [layers.X] binds other symbols
  <name>                   the layer called name, when it has no symbol
  (M-)^4                   repetition
  M{d_state=64}            options of this block; they beat [layers.M], which beats the default.
                           On a group they go to the members that know them
  [M&*:sum]                parallel branches on one normed input; fused by sum (default), mean,
                           concat, gate or diff
  M@A ... M@A              shared weights: the same name means the same weights
  (*-)@{A,B}               shared in rotation: the first call is A, the second B, the third A ...
  M-M-|M-M*-               '|' ends a pipeline stage; it is no block
  M-M*-/*E/*E              '/' starts a multi-token-prediction depth

The order behind an item is options, share, repetition: (*-){rope=false}@{A,B}^2

Values are TOML's: true, 12, 0.5, "text"; plain words need no quotes.
Wiring keys belong to the host and go with any block or group:
  in=h+embed       what the norm sees; names joined by '+' are concatenated
  residual=none    no adds: the members of a group feed each other
  out=linear       a projection of this call's own, never shared
  to=next          the output goes to the next block's input, before its norm, and not to h
  to=chain         the output stands for h as the next block's input
  in_scale=0.5     factor on the normed input; out_scale=0.5 on the output
  norm=layernorm   another kind of norm for this block
  lora=128         rank of this call's own adapter on shared weights
On a group with residual=none, in and in_scale go to the first member, out, to and out_scale to
the last; on other groups, wiring goes to every block inside. The inner key wins.

Known stacks:
  Nemotron-H-8B          (M-)^3M*-((M-)^4M*-)^3(M-)^5
  Nemotron-Nano-9B-v2    (M-)^3M(M-)^3M*-(M-)^2M*-((M-)^3M*-)^2M-M(M-)^6
  Nemotron-Nano-12B-v2   ((M-)^3M*-)^6(M-)^4
  Nemotron-3-Nano        (ME)^2M*E((ME)^2M*E)^4(ME)^3M*E(ME)^4
  Jamba-v0.1             (m-mEm-mE*-mEm-mE)^4
  Falcon-H1-7B           ([M&*:sum]-)^44
  Qwen3-Next-80B         ((GE)^3*E)^12
  Zamba2 shares          (*-){in=h+embed, residual=none, out=linear, to=next, lora=128}@{A,B}M
)";
}

}  // namespace strata
