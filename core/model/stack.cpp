#include "core/model/stack.h"

#include <algorithm>

#include "core/model/stack_options.h"
#include "core/ops/add_rms_norm.h"
#include "core/ops/arithmetic.h"
#include "core/ops/linear.h"
#include "core/ops/residual_add.h"
#include "core/ops/rms_norm.h"
#include "core/ops/shape.h"

namespace strata {

// ----------------------------------------------------------------------------------------- norms
HostNorm declare_norm(ParamStore& params, const std::string& prefix, const std::string& kind,
                      double eps, int64_t width) {
  const bool one_plus = kind.ends_with("_1p");
  ParamOptions options{one_plus ? Init::zeros() : Init::ones(), Keep::accum, Decay::no};
  HostNorm norm{kind, eps, params.declare(prefix + "weight", {width}, options), {}};
  if (kind.starts_with("layernorm")) {
    options.init = Init::zeros();
    norm.bias = params.declare(prefix + "bias", {width}, options);
  } else if (!kind.starts_with("rmsnorm")) {
    throw Error("unknown norm '" + kind +
                "'; known are rmsnorm, rmsnorm_1p, layernorm and layernorm_1p");
  }
  return norm;
}

// y joins h, and the norm of the sum is taken in the same pass.
static void add_and_norm(Context& cx, const NextNorm& next, Tensor h, Tensor y, double scale) {
  const HostNorm& norm = *next.norm;
  add_rms_norm_into(cx, h, y, norm.weight, next.n, next.inv,
                    {.eps = norm.eps, .weight_plus_one = norm.kind.ends_with("_1p")}, scale);
}

Tensor apply_norm(Context& cx, const HostNorm& norm, Tensor x) {
  const bool one_plus = norm.kind.ends_with("_1p");
  if (norm.bias) return layer_norm(cx, x, norm.weight, norm.bias, {norm.eps, one_plus});
  return rms_norm(cx, x, norm.weight, {.eps = norm.eps, .weight_plus_one = one_plus});
}

// Runs what belongs to a layer: what it throws says where, in the words that errors have.
template <class F>
static auto placed(const std::string& place, const F& run) {
  try {
    return run();
  } catch (const Error& e) {
    if (std::string_view(e.what()).find(place) != std::string_view::npos) throw;
    throw Error(place + ": " + e.what(), e.kind());
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& e) {
    throw Error(place + ": " + e.what());
  }
}

// ---------------------------------------------------------------------------------------- stack
Stack::Stack(const Expansion& expansion, const Config& config, LayerFactory& factory,
             ParamStore& params)
    : config_(config),
      factory_(factory),
      params_(params),
      n_blocks_(int64_t(expansion.blocks.size())) {
  if (!expansion.mtp.empty())
    throw Error("pattern '" + expansion.text +
                "' asks for multi-token-prediction depths (\"/\"), which cannot be assembled yet; "
                "remove the part from '/' on");
  for (size_t i = 0; i < expansion.blocks.size(); ++i) {
    blocks_.push_back(build(expansion.blocks[i], "blocks." + std::to_string(i) + ".",
                            block_name(expansion, i), true));
    for (const int cut : expansion.cuts) blocks_.back().stage += size_t(cut) <= i;
  }
  if (!blocks_.empty() && blocks_.back().wiring.to != Wiring::To::h)
    throw Error(blocks_.back().place +
                ": the last block's output goes to a next block (to=next), which does not exist");
}

// How many parts the block's input has: "h+embed" is two times d_model wide.
static int64_t input_parts(const Wiring& w) {
  return 1 + std::count(w.in.begin(), w.in.end(), '+');
}

StackBlock Stack::build(const BlockSpec& spec, const std::string& prefix, const std::string& place,
                        bool with_norm, int64_t d_in) {
  const int64_t d_model = config_.model.d_model;
  StackBlock block;
  block.wiring = spec.wiring;
  block.place = place;
  if (spec.wiring.lora > 0)
    throw Error(place + ": lora=" + std::to_string(spec.wiring.lora) +
                " asks for a per-call adapter, which this build does not have; remove it");
  if (d_in == 0) d_in = d_model * input_parts(spec.wiring);
  if (spec.wiring.in.find("embed") != std::string::npos) needs_embed_ = true;
  if (with_norm) {
    const std::string kind = spec.wiring.norm.empty() ? config_.model.norm : spec.wiring.norm;
    block.norm = declare_norm(params_, prefix + "pre_norm.", kind, config_.model.norm_eps, d_in);
  }
  if (spec.wiring.out_linear)
    block.out_linear = params_.declare(prefix + "call.out", {d_model, d_model});

  block.fuse = spec.fuse;
  if (!spec.branches.empty() && spec.fuse != "sum" && spec.fuse != "mean" && spec.fuse != "diff")
    throw Error(place + ": branches can be fused by sum, mean or diff, got '" + spec.fuse + "'");
  for (size_t k = 0; k < spec.branches.size(); ++k) {
    std::vector<StackBlock> members;
    for (size_t m = 0; m < spec.branches[k].size(); ++m) {
      std::string inner = prefix + "branch." + std::to_string(k) + ".";
      if (spec.branches[k].size() > 1) inner += std::to_string(m) + ".";
      BlockSpec member = spec.branches[k][m];
      member.wiring.norm = spec.wiring.norm;
      members.push_back(build(member, inner,
                              place + " branch " + std::to_string(k) + " '" + member.symbol + "'",
                              m > 0, m == 0 ? d_in : 0));
    }
    block.branches.push_back(std::move(members));
  }
  if (!block.branches.empty()) return block;

  const std::string name = factory_.name_of(spec.symbol);
  Options options = symbol_options(spec.symbol, config_, factory_);
  for (const PatternOption& o : spec.options) options[o.key] = o.value;

  Site& site = block.site;
  site.id = next_site_++;
  site.symbol = spec.symbol;
  site.place = block.place = place + " (" + name + ")";
  site.own_backward = factory_.own_hooks(spec.symbol) & 2;
  std::string param_prefix =
      prefix + (prefix.find(".branch.") == std::string::npos ? "mixer." : "");
  std::shared_ptr<Layer>* shared = nullptr;
  if (spec.share) {
    param_prefix = "shared." + spec.share->id + ".";
    if (spec.share->members > 1) param_prefix += std::to_string(spec.share->member) + ".";
    shared = &shared_[param_prefix];
    site.layer = *shared;
  }
  if (!site.layer) {
    const LayerConfig layer_config(d_model, n_blocks_, std::move(options), site.place, d_in);
    site.layer = placed(site.place, [&] { return factory_.create(spec.symbol, layer_config); });
    layer_config.refuse_unread();
    params_.adopt(param_prefix, spec.symbol, *site.layer);
    if (shared) *shared = site.layer;
  }
  return block;
}

static void collect(const StackBlock& block, std::vector<const Site*>& sites) {
  if (block.branches.empty()) sites.push_back(&block.site);
  for (const auto& branch : block.branches)
    for (const StackBlock& member : branch) collect(member, sites);
}

std::vector<const Site*> Stack::sites() const {
  std::vector<const Site*> sites;
  for (const StackBlock& block : blocks_) collect(block, sites);
  return sites;
}

void Stack::set_recompute(const std::vector<std::string>& policy) {
  for (const std::string& word : policy) {
    try {
      if (word != "block") factory_.name_of(word);
    } catch (const Error& e) {
      throw Error("train.recompute must be \"none\", \"block\" or symbols of layers: " +
                  std::string(e.what()));
    }
  }
  for (StackBlock& block : blocks_) {
    std::vector<const Site*> sites;
    collect(block, sites);
    block.recompute = false;
    for (const std::string& word : policy)
      for (const Site* site : sites)
        block.recompute |=
            word == "block" || word == site->symbol || word == factory_.name_of(site->symbol);
    // Only what leaves a block through the stream can be computed again.
    block.recompute &= block.wiring.to == Wiring::To::h;
  }
}

// ----------------------------------------------------------------------------------------- walk
Tensor Stack::run_site(Context& cx, CallState& call, const Site& site, Tensor x) const {
  auto pass = std::make_shared<BlockPass>(cx, call, site.id, site.place);
  cx.set_place(site.place);
  const bool replayed = !site.own_backward || !cx.recording();
  const bool before = cx.set_recording(cx.recording() && replayed);
  Tensor y = placed(site.place, [&] { return site.layer->forward(cx, x, *pass); });
  cx.set_recording(before);
  if (replayed) return y;
  y = cx.track(y);
  const Layer* layer = site.layer.get();
  cx.record([=](Context& cx) {
    const Tensor dy = cx.grad(y);
    if (!dy) return;
    const Tensor dx = const_cast<Layer*>(layer)->backward(cx, dy, *pass);
    if (dx) pass_gradient(cx, x, dx, 1, false);
  });
  return y;
}

Tensor Stack::mix(Context& cx, CallState& call, const StackBlock& block, Tensor x) const {
  if (block.branches.empty()) return run_site(cx, call, block.site, x);
  Tensor sum;
  for (size_t k = 0; k < block.branches.size(); ++k) {
    Tensor y = x;
    for (const StackBlock& member : block.branches[k]) {
      if (member.norm.weight) y = apply_norm(cx, member.norm, y);
      if (member.wiring.in_scale != 1) y = scale(cx, y, member.wiring.in_scale);
      y = mix(cx, call, member, y);
      if (member.wiring.out_scale != 1) y = scale(cx, y, member.wiring.out_scale);
      if (member.out_linear) y = linear(cx, y, member.out_linear);
    }
    if (!sum)
      sum = y;
    else
      sum = block.fuse == "diff" ? sub(cx, sum, y) : add(cx, sum, y);
  }
  return block.fuse == "mean" ? scale(cx, sum, 1.0 / double(block.branches.size())) : sum;
}

static int first_site(const StackBlock& block) {
  return block.branches.empty() ? block.site.id : first_site(block.branches.front().front());
}

// What the block's norm sees.
static Tensor block_input(Context& cx, CallState& call, const StackBlock& block, const Flow& in) {
  Tensor h = in.chain ? in.chain : in.h;
  if (in.pending) h = add(cx, h, in.pending);
  Tensor x;
  for (size_t begin = 0; begin <= block.wiring.in.size();) {
    const size_t end = std::min(block.wiring.in.find('+', begin), block.wiring.in.size());
    const std::string name = block.wiring.in.substr(begin, end - begin);
    begin = end + 1;
    Tensor part = h;
    if (name != "h") part = BlockPass(cx, call, first_site(block), block.place).fetch(name);
    x = x ? concat(cx, {x, part}) : part;
  }
  return x;
}

// A value that the next block reads needs a gradient that outlives that block's backward.
static Tensor outlive(Context& cx, Tensor value) {
  if (cx.recording()) cx.bind_grad(value, cx.alloc(value.shape, value.dtype));
  return value;
}

Flow Stack::run(Context& cx, CallState& call, const StackBlock& block, Flow in,
                const NextNorm& next) const {
  cx.set_place(block.place);
  call.stage = block.stage;
  Tensor x = in.normed ? in.normed : block_input(cx, call, block, in);
  if (block.norm.weight && !in.normed) x = apply_norm(cx, block.norm, x);
  if (block.wiring.in_scale != 1) x = scale(cx, x, block.wiring.in_scale);
  const int published = call.publications;
  Tensor y = mix(cx, call, block, x);
  cx.set_place(block.place);
  if (block.wiring.out_scale != 1) y = scale(cx, y, block.wiring.out_scale);
  if (block.out_linear) y = linear(cx, y, block.out_linear);
  switch (block.wiring.to) {
    case Wiring::To::next:
      return {in.h, {}, outlive(cx, y)};
    case Wiring::To::chain:
      return {in.h, outlive(cx, y), {}};
    case Wiring::To::h:
      break;
  }
  if (!block.wiring.add) return {y, {}, {}};
  if (next.norm && call.publications == published) {  // a published input must stay
    add_and_norm(cx, next, in.h, y, config_.model.residual_multiplier);
    return {in.h, {}, {}, next.n};
  }
  return {residual_add(cx, in.h, y, config_.model.residual_multiplier), {}, {}};
}

// Whether nothing stands between the sum of one block and the RMS norm of the next.
static bool joins(const StackBlock& block, const StackBlock& next) {
  return block.wiring.add && block.wiring.to == Wiring::To::h && next.wiring.in == "h" &&
         next.norm.weight && next.norm.kind.starts_with("rmsnorm");
}

Tensor Stack::forward(Context& cx, CallState& call, Tensor h, WalkRecord* record,
                      const AfterBlock& after) const {
  const bool recording = record && cx.recording();
  Arena& activations = cx.memory().activations;
  Flow flow{h, {}, {}};
  // Without a tape, one pass adds a block's output to the stream and takes the next block's norm.
  const bool joining = !cx.recording() && !after;
  NextNorm norm;
  if (joining)
    norm = {nullptr, cx.alloc(h.shape, h.dtype), cx.alloc({h.rows(), 1}, cx.accum_dtype())};
  for (const StackBlock& block : blocks_) {
    const Flow in = flow;
    const size_t tape_begin = cx.tape_size();
    if (recording && !block.recompute) {
      flow = run(cx, call, block, in);
    } else {
      // Nothing but the stream (and what is handed on) outlives the block.
      Tensor out = recording ? cx.alloc(in.h.shape, in.h.dtype) : in.h;
      const bool hands_on = block.wiring.to != Wiring::To::h;
      const int published = call.publications;
      const size_t mark = activations.mark();
      const Context::Notes notes = cx.notes();
      cx.set_recording(false);
      call.recomputes = recording;
      Tensor stream = in.h;
      if (recording) {
        residual_add_into(cx, out, {}, in.h);
        stream = out;
      }
      const StackBlock* next = &block == &blocks_.back() ? nullptr : &block + 1;
      norm.norm = norm.n && next && joins(block, *next) ? &next->norm : nullptr;
      Flow now = run(cx, call, block, {stream, in.chain, in.pending, in.normed}, norm);
      if (call.publications != published) norm.n = {};  // what was published may lie there
      if (!block.wiring.add && !hands_on) residual_add_into(cx, out, {}, now.h);
      now.h = out;
      if (!hands_on && call.publications == published) activations.release(mark);
      cx.set_recording(recording);
      call.recomputes = false;
      if (recording) cx.drop_notes(notes);  // they come again with the block's backward
      flow = {recording ? cx.track(now.h) : now.h, now.chain, now.pending, now.normed};
    }
    if (recording) record->blocks.push_back({tape_begin, in, flow});
    if (after) after(size_t(&block - blocks_.data()), flow.h);
  }
  return flow.h;
}

void Stack::backward(Context& cx, CallState& call, WalkRecord& record) const {
  Memory& memory = cx.memory();
  const Tensor& like = record.blocks.empty() ? Tensor{} : record.blocks.front().in.h;
  Tensor spare;  // the stream's other gradient buffer, for blocks that replace the stream
  for (const StackBlock& block : blocks_)
    if (!block.wiring.add && block.wiring.to == Wiring::To::h && !spare)
      spare = cx.scratch(like.shape, like.dtype);
  for (size_t i = blocks_.size(); i-- > 0;) {
    const StackBlock& block = blocks_[i];
    const WalkRecord::BlockRecord& r = record.blocks[i];
    const Tensor g = cx.grad(r.out.h);
    if (!block.wiring.add && block.wiring.to == Wiring::To::h && cx.can_set_grad(r.in.h)) {
      cx.bind_grad(r.in.h, spare);
      spare = g;
    }
    const size_t scratch_mark = memory.scratch.mark();
    const size_t activation_mark = memory.activations.mark();
    if (block.recompute) {
      cx.set_recording(true);
      const Flow again = run(cx, call, block, r.in);
      cx.set_recording(false);
      if (g) cx.set_grad(again.h, g);
    }
    cx.set_place(block.place);
    placed(block.place, [&] { cx.replay(r.tape_begin); });
    if (block.recompute) take_notes(cx, call);
    memory.scratch.release(scratch_mark);
    memory.activations.release(activation_mark);
  }
}

}  // namespace strata
