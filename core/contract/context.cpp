#include "core/contract/context.h"

#include <chrono>
#include <stdexcept>

#include "core/contract/layer.h"
#include "core/ops/fill.h"
#include "core/tensor/device.h"
#include "core/tensor/memory.h"

namespace strata {

Probe::~Probe() = default;
MissingKernel::~MissingKernel() = default;

namespace {

// The gradient of one allocated tensor. Views of it (columns, other shapes) share the buffer, so
// what has been written is kept as disjoint ranges of columns.
struct Root {
  Shape shape;
  DType dtype;
  Tensor grad;
  std::vector<std::pair<int64_t, int64_t>> written;
};

struct Var {
  int root;
  Shape shape;
  int64_t pitch, offset;  // of the view inside the root's packed gradient, in elements
  int64_t begin, end;     // the root's columns it touches
  bool covers;            // false: it may leave some elements of those columns alone
};

}  // namespace

struct Context::Impl {
  Memory* memory;
  Stream stream;
  DeviceDriver* driver = nullptr;  // where kernels run later than they are started
  DType dtype;
  bool recording = false;
  std::vector<Root> roots;
  std::vector<Var> vars;
  std::vector<std::function<void(Context&)>> tape;
  std::vector<AuxLoss> aux;
  std::vector<Count> counts;
  double aux_scale = 1;
  Probe* probe = nullptr;
  Profile* profile = nullptr;
  std::string place;

  Tensor take(Arena& arena, const Shape& shape, DType type) {
    Tensor t = view_of(nullptr, shape, type, memory->device());
    t.data = arena.take(t.bytes(), place);
    return t;
  }

  int add_root(const Tensor& y) {
    roots.push_back({y.shape, y.dtype, {}, {}});
    return int(roots.size()) - 1;
  }

  void ensure_grad(Root& root) {
    if (root.grad) return;
    if (memory->open_scopes > 0)
      throw std::logic_error(place + ": a gradient was asked for inside a ScratchScope");
    root.grad = take(memory->scratch, root.shape, root.dtype);
  }

  Tensor view_grad(const Var& v) const {
    Tensor g = roots[v.root].grad;
    if (g.data) g.data = static_cast<char*>(g.data) + v.offset * int64_t(size_of(g.dtype));
    g.shape = v.shape;
    g.pitch = v.pitch;
    return g;
  }
};

Context::Context(Memory& memory, DType dtype) : impl_(new Impl) {
  impl_->memory = &memory;
  if (!memory.planning()) {
    DeviceDriver& driver = driver_of(memory.device());
    impl_->stream = driver.stream();
    if (memory.device().kind != DeviceKind::cpu) impl_->driver = &driver;
  }
  impl_->dtype = dtype;
}

Context::~Context() = default;

Device Context::device() const { return impl_->memory->device(); }
Stream Context::stream() const { return impl_->stream; }
DType Context::dtype() const { return impl_->dtype; }
DType Context::accum_dtype() const { return impl_->dtype == DType::f64 ? DType::f64 : DType::f32; }
bool Context::planning() const { return impl_->memory->planning(); }
Memory& Context::memory() { return *impl_->memory; }

Tensor Context::alloc(const Shape& shape, DType dtype) {
  return impl_->take(impl_->memory->activations, shape, dtype);
}

Tensor Context::scratch(const Shape& shape, DType dtype) {
  return impl_->take(impl_->memory->scratch, shape, dtype);
}

bool Context::recording() const { return impl_->recording; }

bool Context::set_recording(bool on) {
  const bool before = impl_->recording;
  impl_->recording = on;
  return before;
}

Tensor Context::track(Tensor y) {
  y.var = -1;
  y.param = nullptr;
  if (!impl_->recording) return y;
  const int root = impl_->add_root(y);
  impl_->vars.push_back({root, y.shape, y.cols(), 0, 0, y.cols(), true});
  y.var = int32_t(impl_->vars.size()) - 1;
  return y;
}

Tensor Context::columns(Tensor x, int64_t begin, int64_t width) {
  if (begin < 0 || width < 1 || begin + width > x.cols())
    throw Error(place().data() + std::string(": columns [") + std::to_string(begin) + ", " +
                std::to_string(begin + width) + ") of a tensor " + to_string(x.shape));
  if (x.data) x.data = static_cast<char*>(x.data) + begin * int64_t(size_of(x.dtype));
  x.shape[-1] = width;
  if (x.var >= 0) {
    Var v = impl_->vars[x.var];
    const Root& root = impl_->roots[v.root];
    v.shape = x.shape;
    v.offset += begin;
    if (v.covers && v.pitch == root.shape.cols()) {
      v.begin += begin;
      v.end = v.begin + width;
    } else {
      v.covers = false;
    }
    impl_->vars.push_back(v);
    x.var = int32_t(impl_->vars.size()) - 1;
  }
  return x;
}

Tensor Context::reshape(Tensor x, const Shape& shape) {
  const bool same_rows = shape.cols() == x.cols();
  if (shape.numel() != x.numel() || (!same_rows && !x.contiguous()))
    throw Error(std::string(place()) + ": cannot view " + to_string(x.shape) +
                (x.contiguous() ? "" : " (a slice)") + " as " + to_string(shape));
  x.shape = shape;
  if (!same_rows) x.pitch = shape.cols();
  if (x.var >= 0) {
    Var v = impl_->vars[x.var];
    v.shape = shape;
    if (!same_rows) {
      if (v.pitch != impl_->vars[x.var].shape.cols())  // a column slice of one row only
        v.covers = false;
      v.pitch = shape.cols();
    }
    impl_->vars.push_back(v);
    x.var = int32_t(impl_->vars.size()) - 1;
  }
  return x;
}

void Context::record(std::function<void(Context&)> backward) {
  if (impl_->recording) impl_->tape.push_back(std::move(backward));
}

// Zeroes what nobody wrote of the columns [begin, end) and marks them written.
static void complete(Context& cx, Root& root, int64_t begin, int64_t end) {
  std::vector<std::pair<int64_t, int64_t>> gaps{{begin, end}};
  for (const auto& [b, e] : root.written) {
    std::vector<std::pair<int64_t, int64_t>> rest;
    for (const auto& [gb, ge] : gaps) {
      if (e <= gb || b >= ge) {
        rest.push_back({gb, ge});
        continue;
      }
      if (gb < b) rest.push_back({gb, b});
      if (e < ge) rest.push_back({e, ge});
    }
    gaps = std::move(rest);
  }
  for (const auto& [gb, ge] : gaps) {
    Tensor part = root.grad;
    if (part.data) part.data = static_cast<char*>(part.data) + gb * int64_t(size_of(part.dtype));
    part.shape[-1] = ge - gb;
    cx.zero(part);
    root.written.push_back({gb, ge});
  }
}

static bool touches(const Root& root, int64_t begin, int64_t end) {
  for (const auto& [b, e] : root.written)
    if (b < end && e > begin) return true;
  return false;
}

Tensor Context::grad(Tensor y) {
  if (y.var < 0) return {};
  const Var& v = impl_->vars[y.var];
  Root& root = impl_->roots[v.root];
  if (!root.grad || !touches(root, v.begin, v.end)) return {};
  if (root.shape.rank == 0) return root.grad;
  complete(*this, root, v.begin, v.end);
  return impl_->view_grad(v);
}

GradTarget Context::grad_target(Tensor x) {
  if (x.param) {
    Tensor g = x.param->grad;
    if (!g) return {};
    if (g.data) {  // the gradient may be of a wider type than the parameter
      const int64_t first = (static_cast<char*>(x.data) - static_cast<char*>(x.param->value.data)) /
                            int64_t(size_of(x.dtype));
      g.data = static_cast<char*>(g.data) + first * int64_t(size_of(g.dtype));
    }
    g.shape = x.shape;
    g.pitch = x.pitch;
    return {g, true, true};
  }
  if (x.var < 0) return {};
  const Var& v = impl_->vars[x.var];
  Root& root = impl_->roots[v.root];
  impl_->ensure_grad(root);
  const bool fresh = v.covers && !touches(root, v.begin, v.end);
  if (fresh)
    root.written.push_back({v.begin, v.end});
  else
    complete(*this, root, v.begin, v.end);
  return {impl_->view_grad(v), true, !fresh};
}

bool Context::can_set_grad(Tensor x) const {
  if (x.var < 0) return false;
  const Var& v = impl_->vars[x.var];
  const Root& root = impl_->roots[v.root];
  return !root.grad && v.covers && v.end - v.begin == root.shape.cols();
}

void Context::set_grad(Tensor x, Tensor g) {
  if (x.var < 0) return;
  if (!can_set_grad(x) || !g.contiguous())
    throw std::logic_error(impl_->place + ": set_grad on a variable that has a gradient");
  const Var& v = impl_->vars[x.var];
  impl_->roots[v.root].grad = g;
  impl_->roots[v.root].written = {{v.begin, v.end}};
}

void Context::bind_grad(Tensor x, Tensor home) {
  if (x.var < 0) return;
  if (!can_set_grad(x) || !home.contiguous())
    throw std::logic_error(impl_->place + ": bind_grad on a variable that has a gradient");
  impl_->roots[impl_->vars[x.var].root].grad = home;
}

bool Context::share_columns(Tensor a, Tensor b) const {
  if (a.var < 0 || b.var < 0) return false;
  const Var &u = impl_->vars[a.var], &v = impl_->vars[b.var];
  return u.root == v.root && u.begin < v.end && v.begin < u.end;
}

void Context::share_grad(Tensor y, Tensor x) {
  if (y.var >= 0 && x.var >= 0) impl_->vars[y.var].root = impl_->vars[x.var].root;
}

size_t Context::tape_size() const { return impl_->tape.size(); }

void Context::replay(size_t begin) {
  const bool before = set_recording(false);
  while (impl_->tape.size() > begin) {
    auto backward = std::move(impl_->tape.back());
    impl_->tape.pop_back();
    backward(*this);
  }
  set_recording(before);
}

void Context::clear_tape() {
  impl_->tape.clear();
  impl_->roots.clear();
  impl_->vars.clear();
  impl_->aux.clear();
  impl_->counts.clear();
}

// Starts a kernel of a device. What it throws of the device's state gets the op and the block: it
// may have come from an earlier one.
static void start(DeviceDriver& driver, const char* op, std::string_view place, KernelFn kernel,
                  const void* args, Stream stream) {
  driver.note_launch(op, place);
  try {
    kernel(args, stream);
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::fault || e.kind() == ErrorKind::lost) {
      const std::string text = e.what(), own = std::string(op) + ": ";
      driver.fail(e.kind(), text.starts_with(own) ? text.substr(own.size()) : text);
    }
    throw;
  }
}

void Context::launch(const char* op, void (*kernel)(const void*, Stream), const void* args) {
  if (planning()) return;
  const auto run = [&] {
    if (impl_->driver)
      start(*impl_->driver, op, impl_->place, kernel, args, stream());
    else
      kernel(args, stream());
  };
  if (!impl_->profile) return run();
  const auto start = std::chrono::steady_clock::now();
  run();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  auto it = impl_->profile->ops.find(std::string_view(op));
  if (it == impl_->profile->ops.end()) it = impl_->profile->ops.emplace(op, Profile::Entry{}).first;
  it->second.seconds += seconds;
  ++it->second.calls;
  impl_->profile->kernel_seconds += seconds;
}

void Context::set_profile(Profile* profile) { impl_->profile = profile; }

void Context::zero(Tensor x) { fill(*this, x, 0); }

void Context::tap(std::string_view name, Tensor value) {
  if (impl_->probe && !planning()) impl_->probe->see(impl_->place, name, value);
}

void Context::set_probe(Probe* probe) { impl_->probe = probe; }

bool Context::observed() const { return impl_->probe || impl_->profile; }

void Context::add_loss(std::string_view name, Tensor scalar, double weight) {
  impl_->aux.push_back({std::string(name), scalar, weight});
  if (scalar.var < 0) return;
  Tensor g = alloc(scalar.shape, scalar.dtype);
  fill(*this, g, weight * impl_->aux_scale);
  set_grad(scalar, g);
}

void Context::set_aux_scale(double scale) { impl_->aux_scale = scale; }

const std::vector<Context::AuxLoss>& Context::aux_losses() const { return impl_->aux; }

void Context::add_count(std::string_view name, Tensor values) {
  impl_->counts.push_back({impl_->place, std::string(name), values});
}

const std::vector<Context::Count>& Context::counts() const { return impl_->counts; }

Context::Notes Context::notes() const { return {impl_->aux.size(), impl_->counts.size()}; }

void Context::drop_notes(Notes since) {
  impl_->aux.resize(since.losses);
  impl_->counts.resize(since.counts);
}

void Context::set_place(std::string_view place) { impl_->place = place; }

std::string_view Context::place() const { return impl_->place; }

ScratchScope::ScratchScope(Context& cx) : memory_(cx.memory()), mark_(memory_.scratch.mark()) {
  ++memory_.open_scopes;
}

ScratchScope::~ScratchScope() {
  memory_.scratch.release(mark_);
  --memory_.open_scopes;
}

}  // namespace strata
