#include "core/model/model.h"

#include <algorithm>
#include <bit>

#include "core/model/stack_options.h"
#include "core/ops/arithmetic.h"
#include "core/ops/embedding.h"
#include "core/ops/linear.h"
#include "core/ops/lm_head_loss.h"
#include "core/ops/positions.h"
#include "core/ops/residual_add.h"
#include "core/ops/rms_norm.h"
#include "core/ops/tally.h"
#include "core/tensor/device.h"

namespace strata {

static DType parse_dtype(const std::string& name, Device device) {
  const bool half = name == "bf16" || name == "f16";
  if (half && device.kind == DeviceKind::cpu)
    throw Error("model.dtype = \"" + name + "\" needs a CUDA device, model.device is " +
                to_string(device) + "; use f32, or --device cuda");
  if (name == "f32") return DType::f32;
  if (name == "f64") return DType::f64;
  if (half) return name == "bf16" ? DType::bf16 : DType::f16;
  throw Error("model.dtype must be f32, f64, bf16 or f16, got '" + name + "'");
}

// Where kernels of the context read a tensor of the host: the same place on the CPU, else a copy.
static Tensor on_device(Context& cx, Tensor host) {
  if (!host || cx.device().kind == DeviceKind::cpu) return host;
  const Tensor t = cx.alloc(host.shape, host.dtype);
  if (!cx.planning()) assign_from_host(t, host.data);
  return t;
}

static Tensor on_device(Context& cx, double number) {
  const Tensor t = cx.alloc({1}, DType::f64);
  if (!cx.planning()) assign_from_host(t, &number);
  return t;
}

static TokenBatch on_device(Context& cx, const TokenBatch& batch) {
  return {on_device(cx, batch.tokens), on_device(cx, batch.labels), on_device(cx, batch.seq_idx)};
}

Model::Model(Config config, LayerFactory& factory)
    : config_(std::move(config)),
      expansion_(expand_pattern(config_.model.pattern)),
      dtype_(parse_dtype(config_.model.dtype, parse_device(config_.model.device))),
      device_(parse_device(config_.model.device)) {
  const ModelConfig& m = config_.model;
  if (m.d_model < 1)
    throw Error("model.d_model must be at least 1, got " + std::to_string(m.d_model));
  if (m.vocab_size < 1)
    throw Error("model.vocab_size must be at least 1, got " + std::to_string(m.vocab_size));
  embed_ = params_.declare("embed.weight", {m.vocab_size, m.d_model},
                           {.init = Init::normal(m.init_std)});
  factory.use_device(device_);
  settle_options(expansion_, config_, factory);
  stack_ = std::make_unique<Stack>(expansion_, config_, factory, params_);
  final_norm_ = declare_norm(params_, "final_norm.", m.norm, m.norm_eps, m.d_model);
  if (!m.tie_embeddings)
    lm_head_ = params_.declare("lm_head.weight", {m.vocab_size, m.d_model},
                               {.init = Init::normal(m.init_std)});
  params_.allocate(dtype_, true, true, device_);
  declare_state();
}

Param Model::head() const { return lm_head_ ? lm_head_ : embed_; }

// Arenas are empty between calls.
struct Model::CallScope {
  explicit CallScope(Context& cx) : cx(cx) {
    cx.memory().activations.release(0);
    cx.memory().scratch.release(0);
    cx.clear_tape();
  }
  ~CallScope() { cx.set_recording(false); }
  Context& cx;
};

// ------------------------------------------------------------------------------------- planning
static Tensor shape_of(const Shape& shape, DType dtype) { return view_of(nullptr, shape, dtype); }

void Model::declare_state() {
  Memory memory{device_};
  Context cx(memory, dtype_);
  CallState call;
  call.mode = Mode::prefill;
  call.declare = &layout_;
  CallScope scope(cx);
  run_extend(cx, call, shape_of({1, 2}, DType::i32), false);
  for (const Site* site : stack_->sites())
    for (const StateSpec& spec : site->layer->state())
      if (spec.same_as.empty()) layout_.add(site->id, spec);
}

MemoryPlan Model::plan(const CallShape& shape, int optimizer_states) {
  if (shape.training && dtype_ == DType::f16)
    throw Error("model.dtype = \"f16\" is for inference; train in bf16 or f32");
  MemoryPlan plan;
  plan.parameters = params_.value_bytes(dtype_);
  params_.allocate(dtype_, shape.training, true, device_);
  if (shape.training) {
    plan.gradients = params_.grad_bytes(dtype_);
    plan.optimizer = plan.gradients * size_t(optimizer_states) + params_.master_bytes(dtype_);
  }
  Memory memory{device_};
  Context cx(memory, dtype_);
  const Tensor ids = shape_of({shape.batch, shape.seq_len}, DType::i32);
  const TokenBatch batch{ids, ids, shape.documents ? ids : Tensor{}};
  if (shape.training) {
    CallScope scope(cx);
    const TokenBatch staged = on_device(cx, batch);
    run_training(cx, staged, on_device(cx, 1.0), 0, 1);
  }
  run_evaluation(cx, batch, ids);
  if (!shape.training && shape.extends) {
    for (const int64_t n : {shape.seq_len, int64_t{1}}) {
      CallScope scope(cx);
      CallState call;
      call.mode = n == 1 ? Mode::decode : Mode::prefill;
      call.declare = &layout_;
      run_extend(cx, call, on_device(cx, shape_of({shape.batch, n}, DType::i32)), true);
    }
  }
  plan.activations = memory.activations.peak();
  plan.scratch = memory.scratch.peak();
  return plan;
}

void Model::allocate(const MemoryPlan& plan, bool training) {
  driver_of(device_).configure({config_.model.tf32, config_.train.deterministic});
  params_.allocate(dtype_, training, false, device_);
  graphs_ = {};  // what was recorded reads and writes the memory of before
  memory_ = std::make_unique<Memory>(device_, plan.activations, plan.scratch);
  cx_ = std::make_unique<Context>(*memory_, dtype_);
  if (training) notes_.allocate(device_);
}

// ------------------------------------------------------------------------------------- one call
enum StepKind : int64_t { kTrain, kDecode };  // the first number of a recorded step's key

// Whether what a step starts may be recorded: nobody looks inside, and steps differ in data alone.
bool Model::replays() const {
  return device_.kind != DeviceKind::cpu && config_.model.cuda_graphs && !cx_->observed() &&
         !draws_;
}

Tensor Model::run_step(StepGraphs::Key key, const std::function<Tensor()>& work) {
  return replays() ? graphs_.run(driver_of(device_), key, work) : work();
}

Tensor Model::embed(Context& cx, CallState& call, Tensor tokens) {
  cx.set_place("embedding");
  Tensor h = embedding(cx, tokens, embed_);
  if (config_.model.embedding_multiplier != 1) h = scale(cx, h, config_.model.embedding_multiplier);
  if (stack_->needs_embed()) {
    // The stream is written in place when nothing is recorded, so the published copy is its own.
    Tensor copy = scale(cx, h, 1);
    BlockPass(cx, call, -1, "embedding").publish("embed", copy);
  }
  return h;
}

LmHeadOptions Model::head_options() const {
  int64_t chunk = config_.train.loss_chunk;
  // Every chunk reads and writes the head's gradient once: a GPU wants few, of up to 512 MiB in
  // bf16.
  if (chunk == 0 && device_.kind == DeviceKind::cpu) chunk = 256;
  if (chunk == 0)
    chunk = std::clamp<int64_t>((int64_t{1} << 28) / config_.model.vocab_size, 256, 8192);
  return {.logits_scale = config_.model.logits_multiplier, .chunk = chunk};
}

static LossSum read(const LmHeadLoss& loss) {
  return {*HostCopy(loss.loss)->ptr<double>(), *HostCopy(loss.count)->ptr<int64_t>(), 0};
}

void Model::run_training(Context& cx, const TokenBatch& batch, Tensor inverse_count, uint64_t step,
                         double aux_scale) {
  cx.set_recording(true);
  cx.set_aux_scale(aux_scale);
  CallState call;
  call.seed = uint64_t(config_.train.seed);
  call.step = step;
  call.notes = &notes_;
  call.seq_idx = batch.seq_idx;
  call.positions = positions(cx, batch.seq_idx, {}, batch.tokens.shape[0], batch.tokens.shape[1]);
  const Tensor h0 = embed(cx, call, batch.tokens);
  WalkRecord record;
  const Tensor h = stack_->forward(cx, call, h0, &record);
  const size_t tail = cx.tape_size();
  cx.set_place("final norm");
  const Tensor x = apply_norm(cx, final_norm_, h);
  cx.set_place("LM head");
  if (cx.can_set_grad(h)) cx.bind_grad(h, cx.scratch(h.shape, h.dtype));
  const LmHeadLoss loss = lm_head_loss(cx, x, head(), batch.labels, inverse_count, head_options());
  tally(cx, loss.loss, notes_.sum(Notes::loss));
  tally(cx, loss.loss, notes_.sum(Notes::mean), 1, inverse_count);
  tally(cx, loss.count, notes_.sum(Notes::labelled));
  cx.replay(tail);
  cx.set_recording(false);
  stack_->backward(cx, call, record);
  cx.set_place("embedding");
  cx.replay(0);
  take_notes(cx, call);
  cx.set_recording(false);
  draws_ |= call.draws;
}

void Model::start_training(const TokenBatch& batch, double inverse_count, uint64_t step,
                           double aux_scale) {
  CallScope scope(*cx_);
  const TokenBatch staged = on_device(*cx_, batch);
  const Tensor inverse = on_device(*cx_, inverse_count);
  const Shape& shape = batch.tokens.shape;
  run_step({kTrain, shape[0], shape[1], bool(batch.seq_idx), std::bit_cast<int64_t>(aux_scale)},
           [&] {
             run_training(*cx_, staged, inverse, step, aux_scale);
             return Tensor{};
           });
}

static void add_counts(StepCounts& to, const StepCounts& from) {
  for (const auto& [name, values] : from.counts) {
    std::vector<double>& sum = to.counts[name];
    sum.resize(std::max(sum.size(), values.size()));
    for (size_t i = 0; i < values.size(); ++i) sum[i] += values[i];
  }
}

LossSum Model::finish_training() {
  const Notes::Taken taken = notes_.take();
  for (const auto& [place, counted] : taken.counts) add_counts(counts_[place], counted);
  return {taken.loss, taken.labelled, taken.aux, taken.mean};
}

LossSum Model::train(const TokenBatch& batch, double inverse_count, uint64_t step,
                     double aux_scale) {
  start_training(batch, inverse_count, step, aux_scale);
  return finish_training();
}

void Model::after_step(bool updated) {
  std::map<Layer*, StepCounts> all;
  for (const Site* site : stack_->sites()) {
    add_counts(all[site->layer.get()], counts_[site->place]);
  }
  counts_.clear();
  if (!updated) return;
  CallScope scope(*cx_);
  for (const Site* site : stack_->sites()) {
    const auto counted = all.find(site->layer.get());
    if (counted == all.end()) continue;  // a shared layer is done
    cx_->set_place(site->place);
    site->layer->after_step(*cx_, counted->second);
    all.erase(counted);
  }
}

LossSum Model::run_evaluation(Context& cx, const TokenBatch& given, Tensor predictions) {
  CallScope scope(cx);
  const TokenBatch batch = on_device(cx, given);
  Tensor predicted = predictions;
  if (predictions && cx.device().kind != DeviceKind::cpu)
    predicted = cx.alloc(predictions.shape, predictions.dtype);
  CallState call;
  call.seq_idx = batch.seq_idx;
  call.positions = positions(cx, batch.seq_idx, {}, batch.tokens.shape[0], batch.tokens.shape[1]);
  Tensor h = stack_->forward(cx, call, embed(cx, call, batch.tokens));
  cx.set_place("final norm");
  h = apply_norm(cx, final_norm_, h);
  cx.set_place("LM head");
  const LmHeadLoss loss = lm_head_loss(cx, h, head(), batch.labels, {}, head_options(), predicted);
  if (cx.planning()) return {};
  if (predicted && predicted.data != predictions.data)
    driver_of(device_).download(predictions.data, predicted.data, predicted.bytes());
  return read(loss);
}

LossSum Model::evaluate(const TokenBatch& batch, Tensor predictions) {
  return run_evaluation(*cx_, batch, predictions);
}

Tensor Model::project(Context& cx, Tensor h) {
  cx.set_place("final norm");
  h = apply_norm(cx, final_norm_, h);
  cx.set_place("LM head");
  Tensor logits = linear(cx, h, head());
  if (config_.model.logits_multiplier != 1)
    logits = scale(cx, logits, config_.model.logits_multiplier);
  return logits;
}

Tensor Model::run_walk(Context& cx, const TokenBatch& given, const SeeHidden& see) {
  const TokenBatch batch = on_device(cx, given);
  CallState call;
  call.seq_idx = batch.seq_idx;
  call.positions = positions(cx, batch.seq_idx, {}, batch.tokens.shape[0], batch.tokens.shape[1]);
  Tensor h = embed(cx, call, batch.tokens);
  if (see) see("embed", h);
  const auto show = [&](size_t block, Tensor h) { see(std::to_string(block), h); };
  h = stack_->forward(cx, call, h, nullptr, see ? Stack::AfterBlock(show) : nullptr);
  if (see) see("final", apply_norm(cx, final_norm_, h));
  return h;
}

Tensor Model::logits(const TokenBatch& batch, const SeeHidden& see) {
  CallScope scope(*cx_);
  return project(*cx_, run_walk(*cx_, batch, see));
}

void Model::walk(const TokenBatch& batch, const SeeHidden& see) {
  CallScope scope(*cx_);
  run_walk(*cx_, batch, see);
}

// What a recorded decode step depends on: where the cache lies.
static StepGraphs::Key decode_key(const CacheBatch& cache, int64_t batch, bool all_positions) {
  const auto place = [](const void* p) { return int64_t(reinterpret_cast<intptr_t>(p)); };
  StepGraphs::Key key{kDecode,
                      batch,
                      all_positions,
                      place(cache.slots_base),
                      place(cache.slots.data),
                      place(cache.lengths.data)};
  for (const CacheBatch::Group& group : cache.groups)
    key.insert(key.end(), {place(group.pages), place(group.table.data), group.table.shape[1]});
  return key;
}

Tensor Model::run_extend(Context& cx, CallState& call, Tensor tokens, bool all_positions) {
  call.published.clear();  // of the call before
  call.stage = 0;
  const int64_t batch = tokens.shape[0], n = tokens.shape[1], d_model = config_.model.d_model;
  call.positions = positions(cx, {}, call.cache ? call.cache->lengths : Tensor{}, batch, n);
  Tensor h = stack_->forward(cx, call, embed(cx, call, tokens));
  if (!all_positions && n > 1) {
    Tensor last = cx.alloc({batch, d_model});
    Tensor rows = h;  // the last row of each sequence: rows n * d_model apart
    rows.shape = {batch, d_model};
    rows.pitch = n * d_model;
    if (rows.data)
      rows.data = static_cast<char*>(h.data) + (n - 1) * d_model * int64_t(size_of(h.dtype));
    residual_add_into(cx, last, {}, rows);
    h = last;
  } else if (!all_positions) {
    h = cx.reshape(h, {batch, d_model});
  }
  return project(cx, h);
}

Tensor Model::extend(Cache& cache, std::span<const int> sequences, Tensor tokens,
                     bool all_positions) {
  CallScope scope(*cx_);
  CallState call;
  call.cache = &cache.begin(sequences, tokens.shape[1]);
  call.mode = tokens.shape[1] == 1 ? Mode::decode : Mode::prefill;
  const Tensor staged = on_device(*cx_, tokens);
  const auto work = [&] { return run_extend(*cx_, call, staged, all_positions); };
  const Tensor logits =
      call.mode == Mode::decode
          ? run_step(decode_key(*call.cache, tokens.shape[0], all_positions), work)
          : work();
  cache.end();
  return logits;
}

}  // namespace strata
