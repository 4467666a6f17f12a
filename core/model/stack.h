// The stack: residual blocks built from a pattern. One walk serves training, prefill and decode;
// its backward goes block by block, so that gradients in flight live no longer than their block.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/model/block_pass.h"
#include "core/model/config.h"
#include "core/model/layer_factory.h"
#include "core/model/params.h"
#include "core/model/pattern.h"

namespace strata {

// A norm of the host: rmsnorm, rmsnorm_1p (1 + weight), layernorm, layernorm_1p.
struct HostNorm {
  std::string kind;
  double eps = 1e-5;
  Param weight, bias;
};

// A layer at a call site. Shares point several sites at one layer object.
struct Site {
  int id = 0;          // place of its state in the cache layout
  std::string symbol;  // "M"
  std::string place;   // "block 7 'M' (mamba2)"
  std::shared_ptr<Layer> layer;
  bool own_backward = false;
};

// A block as it runs: a site or parallel branches, with the host's wiring around it.
struct StackBlock {
  std::string place;
  Wiring wiring;
  HostNorm norm;
  Param out_linear;
  Site site;                                      // when there are no branches
  std::vector<std::vector<StackBlock>> branches;  // members after the first have norms of their own
  std::string fuse;
  int stage = 0;  // how many '|' stand before it
  bool recompute = false;
};

// What runs between blocks: the stream, what stands for it (to=chain), what joins the next input
// before its norm (to=next).
struct Flow {
  Tensor h;  // (batch, seq_len, d_model)
  Tensor chain{}, pending{};
  Tensor normed{};  // the next block's norm of h, where it is known already
};

// The norm that an unrecorded block takes of the stream together with its sum, and where it leaves
// it: n may be where the block's own input lies.
struct NextNorm {
  const HostNorm* norm = nullptr;  // null: none
  Tensor n, inv;
};

// What the backward of one recorded walk needs.
struct WalkRecord {
  struct BlockRecord {
    size_t tape_begin = 0;
    Flow in, out;
  };
  std::vector<BlockRecord> blocks;
  size_t tape_begin = 0;
};

class STRATA_API Stack {
 public:
  // Builds every block of the expansion; options of a block beat [layers.X], which beat the
  // symbol's preset. Throws Error with the block's place for anything its layer refuses.
  Stack(const Expansion& expansion, const Config& config, LayerFactory& factory,
        ParamStore& params);

  // h: (batch, seq_len, d_model) after the embedding -> the stream after the last block. When cx
  // records, `record` receives what backward() needs. `after` is shown the stream after each block.
  using AfterBlock = std::function<void(size_t block, Tensor h)>;
  Tensor forward(Context& cx, CallState& call, Tensor h, WalkRecord* record = nullptr,
                 const AfterBlock& after = {}) const;

  // Replays the walk, last block first. The gradient of the result must be set; on return the
  // gradient of the walk's h is.
  void backward(Context& cx, CallState& call, WalkRecord& record) const;

  const std::vector<StackBlock>& blocks() const { return blocks_; }
  std::vector<const Site*> sites() const;
  void set_recompute(const std::vector<std::string>& policy);
  bool needs_embed() const { return needs_embed_; }

 private:
  // d_in: the width of the input; 0: what the wiring says.
  StackBlock build(const BlockSpec& spec, const std::string& prefix, const std::string& place,
                   bool with_norm, int64_t d_in = 0);
  Flow run(Context& cx, CallState& call, const StackBlock& block, Flow in,
           const NextNorm& next = {}) const;
  Tensor mix(Context& cx, CallState& call, const StackBlock& block, Tensor x) const;
  Tensor run_site(Context& cx, CallState& call, const Site& site, Tensor x) const;

  const Config& config_;
  LayerFactory& factory_;
  ParamStore& params_;
  int64_t n_blocks_;
  int next_site_ = 0;
  bool needs_embed_ = false;
  std::map<std::string, std::shared_ptr<Layer>> shared_;
  std::vector<StackBlock> blocks_;
};

// Applies a host norm. x: (..., width).
STRATA_API Tensor apply_norm(Context& cx, const HostNorm& norm, Tensor x);

// Declares a norm's parameters under `prefix` ("blocks.3.pre_norm.").
STRATA_API HostNorm declare_norm(ParamStore& params, const std::string& prefix,
                                 const std::string& kind, double eps, int64_t width);

}  // namespace strata
