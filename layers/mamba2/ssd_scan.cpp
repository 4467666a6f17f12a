#include "layers/mamba2/ssd_scan.h"

#include <omp.h>

#include "core/ops/arithmetic.h"
#include "layers/mamba2/ssd_backward_layout.h"
#include "layers/mamba2/ssd_layout_cuda.h"

namespace strata::mamba2 {
namespace {

const Op<SsdScanArgs> ssd_scan_op("ssd_scan");
const Op<SsdScanArgs> ssd_step_op("ssd_step");
const Op<SsdScanBackwardArgs> ssd_scan_backward_op("ssd_scan_backward");

void expect(Context& cx, const char* what, Tensor x, const Shape& shape) {
  if (x.shape == shape) return;
  throw Error(std::string(cx.place()) + ": ssd_scan: " + what + " must be " + to_string(shape) +
              ", got " + to_string(x.shape));
}

void check(Context& cx, const SsdScanArgs& a) {
  const SsdScanOptions& o = a.options;
  if (o.n_heads < 1 || o.head_dim < 1 || o.n_groups < 1 || o.d_state < 1 || o.chunk_size < 1 ||
      o.n_heads % o.n_groups)
    throw Error(std::string(cx.place()) + ": ssd_scan: n_groups must divide n_heads, got n_heads " +
                std::to_string(o.n_heads) + ", n_groups " + std::to_string(o.n_groups) +
                ", head_dim " + std::to_string(o.head_dim) + ", d_state " +
                std::to_string(o.d_state) + ", chunk_size " + std::to_string(o.chunk_size));
  const int64_t batch = a.x.shape[0], seq_len = a.x.shape[1];
  expect(cx, "x", a.x, {batch, seq_len, o.n_heads * o.head_dim});
  expect(cx, "dt", a.dt, {batch, seq_len, o.n_heads});
  expect(cx, "B", a.b, {batch, seq_len, o.n_groups * o.d_state});
  expect(cx, "C", a.c, {batch, seq_len, o.n_groups * o.d_state});
  expect(cx, "A_log", a.a_log, {o.n_heads});
  if (a.d) expect(cx, "D", a.d, {o.n_heads});
  if (a.dt_bias) expect(cx, "dt_bias", a.dt_bias, {o.n_heads});
  if (a.seq_idx && a.seq_idx.numel() != batch * seq_len)
    expect(cx, "seq_idx", a.seq_idx, {batch, seq_len});
  const Shape state{batch, o.n_heads, o.head_dim, o.d_state};
  if (a.initial_state) expect(cx, "initial_state", a.initial_state, state);
  if (a.final_state) expect(cx, "final_state", a.final_state, state);
}

Tensor workspace(Context& cx, const SsdScanArgs& args, bool backward) {
  return cx.scratch({ssd_workspace_bytes(args, backward)}, DType::u8);
}

GradTarget target(Context& cx, Tensor x) { return x ? cx.grad_target(x) : GradTarget{}; }

}  // namespace

int64_t ssd_workspace_bytes(const SsdScanArgs& args, bool backward) {
  if (args.x.device.kind == DeviceKind::cuda) {
    if (args.x.dtype == DType::bf16 && backward) return SsdBackwardWorkspace(args, nullptr).bytes;
    if (!backward && size_of(args.x.dtype) == 2) return SsdMmaWorkspace::most_bytes(args);
    if (args.x.dtype == DType::f64) return SsdCudaWorkspace<double>(args, backward, nullptr).bytes;
    return SsdCudaWorkspace<float>(args, backward, nullptr).bytes;
  }
  if (args.x.dtype == DType::f64) return SsdWorkspace<double>(args, backward, nullptr).bytes;
  return SsdWorkspace<float>(args, backward, nullptr).bytes;
}

Tensor ssd_scan(Context& cx, SsdScanArgs args) {
  check(cx, args);
  args.c = distinct(cx, args.c, {args.b});
  args.threads = omp_get_max_threads();
  args.y = cx.track(cx.alloc(args.x.shape, args.x.dtype));
  {
    ScratchScope scope(cx);
    args.workspace = workspace(cx, args, false);
    (args.x.shape[1] == 1 ? ssd_step_op : ssd_scan_op)(cx, args.x.dtype, args);
  }
  args.workspace = {};
  cx.record([args](Context& cx) {
    const Tensor dy = cx.grad(args.y);
    const Tensor dfinal = args.final_state ? cx.grad(args.final_state) : Tensor{};
    if (!dy && !dfinal) return;
    SsdScanBackwardArgs back{args,
                             dy,
                             dfinal,
                             cx.grad_target(args.x),
                             cx.grad_target(args.dt),
                             cx.grad_target(args.b),
                             cx.grad_target(args.c),
                             cx.grad_target(args.a_log),
                             target(cx, args.d),
                             target(cx, args.dt_bias),
                             target(cx, args.initial_state)};
    ScratchScope scope(cx);
    if (!dy) cx.zero(back.dy = cx.scratch(args.y.shape, args.y.dtype));
    back.forward.workspace = workspace(cx, back.forward, true);
    ssd_scan_backward_op(cx, args.x.dtype, back);
  });
  return args.y;
}

Tensor ssd_scan(Context& cx, Tensor x, Tensor dt, Tensor b, Tensor c, Tensor a_log, Tensor d,
                Tensor dt_bias, const SsdScanOptions& options, Pass& pass) {
  SsdScanArgs args;
  args.x = x;
  args.dt = dt;
  args.b = b;
  args.c = c;
  args.a_log = a_log;
  args.d = d;
  args.dt_bias = dt_bias;
  args.seq_idx = pass.seq_idx();
  args.options = options;
  args.state = pass.state(pass.unique("ssm"), {options.n_heads, options.head_dim, options.d_state},
                          cx.accum_dtype());
  return ssd_scan(cx, args);
}

}  // namespace strata::mamba2
