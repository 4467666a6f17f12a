// Context: where operations get memory, run kernels and leave their gradients. It is bound to one
// device and works in one dtype. A planning context hands out shapes without memory and runs no
// kernel, so the same code computes the exact peak of every arena.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <typeinfo>
#include <vector>

#include "core/contract/tensor.h"

namespace strata {

// What a kernel runs on: a CUDA stream, or nothing on the CPU.
struct Stream {
  void* handle = nullptr;
};

// Where a gradient is to be written. Not `wanted`: x is a constant, skip the work. `accumulate`:
// add to what is there; otherwise overwrite.
struct GradTarget {
  Tensor grad;
  bool wanted = false;
  bool accumulate = false;
};

// Sees the named intermediates of a run; may also change them in place.
class STRATA_API Probe {
 public:
  virtual ~Probe();
  virtual void see(std::string_view place, std::string_view name, Tensor value) = 0;
};

// Seconds and calls per operation, and of the kernels alone.
struct Profile {
  struct Entry {
    double seconds = 0;
    int64_t calls = 0;
  };
  std::map<std::string, Entry, std::less<>> ops;
  double kernel_seconds = 0;
};

class Memory;  // the arenas of one device (core/tensor/memory.h)

class STRATA_API Context {
 public:
  Context(Memory& memory, DType dtype);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  Device device() const;
  Stream stream() const;
  DType dtype() const;        // of activations: f32, f64, bf16
  DType accum_dtype() const;  // of statistics, decays and states: f64 in check mode, else f32
  bool planning() const;      // shapes only: data pointers are not to be read

  // --- memory. Uninitialised; a layer never frees.
  // Lives until the block's backward when recording, else until the end of the block.
  Tensor alloc(const Shape& shape, DType dtype);
  Tensor alloc(const Shape& shape) { return alloc(shape, dtype()); }
  // Lives until the enclosing ScratchScope ends: workspaces of one operation.
  Tensor scratch(const Shape& shape, DType dtype);
  Memory& memory();

  // --- the tape
  bool recording() const;
  // Stops recording inside a scope; returns the former value.
  bool set_recording(bool on);
  // Makes `y` a variable if recording, so that grad(y) exists. Call it on every output.
  Tensor track(Tensor y);
  // A view of columns [begin, begin + width) of x; its gradient is a view of x's gradient.
  Tensor columns(Tensor x, int64_t begin, int64_t width);
  // x with another shape; the last axis may change only if x's rows are packed.
  Tensor reshape(Tensor x, const Shape& shape);
  // Remembers how to push grad(y) to the inputs; called in reverse order.
  void record(std::function<void(Context&)> backward);
  // The gradient of a tracked output; absent when nothing has reached it.
  Tensor grad(Tensor y);
  // The place for the gradient of an input.
  GradTarget grad_target(Tensor x);
  // Uses `g` as the gradient of x without copying; x must not have one yet.
  void set_grad(Tensor x, Tensor g);
  // True when set_grad(x, g) is allowed: x is a whole variable without a gradient.
  bool can_set_grad(Tensor x) const;
  // Gives x's gradient a home that outlives the block; nothing is written yet.
  void bind_grad(Tensor x, Tensor home);
  // True when a and b share columns of one variable, so that their gradients share memory.
  bool share_columns(Tensor a, Tensor b) const;
  // Lets y share x's gradient: y is x, computed again for the backward.
  void share_grad(Tensor y, Tensor x);

  size_t tape_size() const;
  // Runs the records [begin, tape_size()) backwards and removes them.
  void replay(size_t begin);
  // Forgets all records and variables: once per microbatch.
  void clear_tape();

  // --- kernels
  // Runs `kernel` unless planning; adds its time to the profile when one is attached.
  void launch(const char* op, void (*kernel)(const void*, Stream), const void* args);
  void set_profile(Profile* profile);
  // Sets every element to zero (a kernel like any other).
  void zero(Tensor x);

  // --- taps: name an intermediate; free of cost unless a probe is attached.
  void tap(std::string_view name, Tensor value);
  void set_probe(Probe* probe);
  // Whether a probe or a profile wants to see every operation.
  bool observed() const;

  // Auxiliary losses of layers; `scalar` is (1,) and tracked. Adds weight * scalar to the loss of
  // this microbatch; the value is kept for the log.
  void add_loss(std::string_view name, Tensor scalar, double weight);
  // What add_loss weights are multiplied by: 1 / microbatches of the step.
  void set_aux_scale(double scale);
  struct AuxLoss {
    std::string name;
    Tensor value;  // (1,)
    double weight;
  };
  const std::vector<AuxLoss>& aux_losses() const;

  // Counts for Layer::after_step: `values` (n,) i32, f32 or f64 are summed by name over all call
  // sites of the layer, microbatches and ranks of a step.
  void add_count(std::string_view name, Tensor values);
  struct Count {
    std::string place, name;  // place: of the call site
    Tensor values;
  };
  const std::vector<Count>& counts() const;
  // How many losses and counts have been added; drop_notes forgets the later ones.
  struct Notes {
    size_t losses = 0, counts = 0;
  };
  Notes notes() const;
  void drop_notes(Notes since);

  // Names the place that errors and plans report: "block 7 'M' (mamba2)".
  void set_place(std::string_view place);
  std::string_view place() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Gives scratch memory back when the operation ends.
class STRATA_API ScratchScope {
 public:
  explicit ScratchScope(Context& cx);
  ~ScratchScope();
  ScratchScope(const ScratchScope&) = delete;
  ScratchScope& operator=(const ScratchScope&) = delete;

 private:
  Memory& memory_;
  size_t mark_;
};

using KernelFn = void (*)(const void*, Stream);

// What find_kernel throws when nobody has registered such a kernel.
class STRATA_API MissingKernel : public Error {
 public:
  using Error::Error;
  ~MissingKernel() override;
};

// Finds the kernel of (op, device, dtype); throws MissingKernel naming all three and the file that
// should have brought it, and Error when `type` and `size` are not of the kernel's argument struct.
STRATA_API KernelFn find_kernel(const char* op, DeviceKind device, DType dtype, const char* type,
                                size_t size);

// An operation's name, with the kernels that take `Args`. Define one per operation, in its .cpp.
template <class Args>
class Op {
 public:
  explicit constexpr Op(const char* name) : name_(name) {}

  void operator()(Context& cx, DType dtype, const Args& args) const {
    auto& found = found_[int(cx.device().kind)][int(dtype)];
    auto run = found.load(std::memory_order_relaxed);
    if (!run) {
      run = find_kernel(name_, cx.device().kind, dtype, typeid(Args).name(), sizeof(Args));
      found.store(run, std::memory_order_relaxed);
    }
    cx.launch(name_, run, &args);
  }

 private:
  const char* name_;
  mutable std::atomic<KernelFn> found_[kDeviceKinds][kDTypes] = {};
};

// Names an intermediate of a layer for probes.
inline void tap(Context& cx, std::string_view name, Tensor value) { cx.tap(name, value); }

}  // namespace strata
