// Every operation in bf16 against float64, where the tests run on a device that has bf16.
#include "core/ops/activation.h"
#include "core/ops/add_rms_norm.h"
#include "core/ops/arithmetic.h"
#include "core/ops/attend.h"
#include "core/ops/causal_conv1d.h"
#include "core/ops/decay_scan.h"
#include "core/ops/embedding.h"
#include "core/ops/gather.h"
#include "core/ops/grouped_linear.h"
#include "core/ops/linear.h"
#include "core/ops/lm_head_loss.h"
#include "core/ops/matmul.h"
#include "core/ops/rms_norm.h"
#include "core/ops/rope.h"
#include "core/ops/softmax.h"
#include "tests/core/ops/halfcheck.h"
#include "tests/core/ops/test_pass.h"

using namespace strata;
using namespace strata::test;

namespace {

Tensor ints(Context& cx, const Shape& shape, const std::function<int32_t(int64_t)>& value) {
  std::vector<int32_t> v;
  for (int64_t i = 0; i < shape.numel(); ++i) v.push_back(value(i));
  const Tensor t = cx.alloc(shape, DType::i32);
  assign_from_host(t, v.data());
  return t;
}

// Documents of seven tokens, shifted per row.
Tensor documents(Context& cx, int64_t batch, int64_t seq_len) {
  return ints(cx, {batch, seq_len},
              [=](int64_t i) { return int32_t((i % seq_len + i / seq_len) / 7); });
}

}  // namespace

TEST_CASE("bf16: linear, with few and many rows, and widths that are no multiple of eight") {
  for (const int64_t rows : {1, 5, 16, 17, 130})
    for (const auto& [d_in, d_out] : {std::pair<int64_t, int64_t>{64, 96}, {33, 17}, {2560, 320}}) {
      INFO(rows, " rows, ", d_in, " to ", d_out);
      halfcheck({{'x', {rows, d_in}}, {'w', {d_out, d_in}}, {'w', {d_out}}},
                [](Context& cx, Inputs& in) { return linear(cx, in[0], in[1], in[2]); });
      halfcheck({{'x', {rows, d_in + 3}}, {'w', {d_out, d_in}}},
                [d_in = d_in](Context& cx, Inputs& in) {
                  return linear(cx, cx.columns(in[0], 2, d_in), in[1], Tensor{});
                });
    }
}

TEST_CASE("bf16: matmul of activations") {
  for (const bool transposed : {false, true})
    halfcheck({{'x', {3, 40, 24}}, {'x', {3, transposed ? 56 : 24, transposed ? 24 : 56}}},
              [=](Context& cx, Inputs& in) {
                return matmul(cx, in[0], in[1], {.transpose_b = transposed});
              });
}

TEST_CASE("bf16: grouped_linear, with experts that have no rows") {
  for (const auto& [d_in, d_out] : {std::pair<int64_t, int64_t>{64, 128}, {40, 24}, {33, 17}})
    halfcheck({{'x', {300, d_in}}, {'w', {6, d_out, d_in}}}, [](Context& cx, Inputs& in) {
      const int32_t ends[] = {0, 130, 130, 131, 250, 250, 300};
      return grouped_linear(cx, in[0], in[1], ints(cx, {7}, [&](int64_t i) { return ends[i]; }));
    });
}

TEST_CASE("bf16: norms of whole rows and of groups") {
  for (const int64_t d : {8, 33, 128, 1280, 4480})
    for (const int64_t rows : {1, 19, 70}) {
      INFO(rows, " rows of ", d);
      halfcheck({{'x', {rows, d}}, {'a', {d}}},
                [](Context& cx, Inputs& in) { return rms_norm(cx, in[0], in[1]); });
      halfcheck({{'x', {rows, d}}, {'a', {d}}, {'a', {d}}},
                [](Context& cx, Inputs& in) { return layer_norm(cx, in[0], in[1], in[2]); });
      halfcheck({{'x', {rows, 2 * d}}, {'x', {rows, 2 * d}}, {'a', {2 * d}}},
                [d](Context& cx, Inputs& in) {
                  return gated_rms_norm(cx, in[0], in[1], in[2], {.group = d});
                });
      halfcheck({{'x', {rows, d}}, {'x', {rows, d}}, {'a', {d}}}, [](Context& cx, Inputs& in) {
        const AddedNorm a =
            add_rms_norm(cx, scale(cx, in[0], 1.5), scale(cx, in[1], 0.5), in[2], {}, 0.5);
        return add(cx, a.h, a.n);
      });
    }
}

TEST_CASE("bf16: causal_conv1d, with documents and any number of taps") {
  for (const bool docs : {false, true})
    for (const auto& [seq_len, channels, taps] :
         {std::array<int64_t, 3>{1, 16, 4}, {70, 40, 4}, {9, 7, 3}, {300, 64, 2}, {40, 24, 6}}) {
      INFO(seq_len, " tokens, ", channels, " channels, ", taps, " taps, documents ", docs);
      halfcheck({{'x', {2, seq_len, channels + 5}}, {'w', {channels, 1, taps}}, {'a', {channels}}},
                [&, n = seq_len, channels = channels](Context& cx, Inputs& in) {
                  TestPass pass(2);
                  if (docs) pass.set_seq_idx(documents(cx, 2, n));
                  return causal_conv1d(cx, cx.columns(in[0], 5, channels), in[1], in[2], pass,
                                       {.silu = true});
                });
    }
}

TEST_CASE("bf16: attend, with groups of heads, windows, documents and any head_dim") {
  for (const auto& [seq_len, heads, kv_heads, dim] : {std::array<int64_t, 4>{1, 4, 2, 64},
                                                      {65, 4, 1, 64},
                                                      {200, 5, 5, 80},
                                                      {333, 8, 2, 128},
                                                      {70, 2, 1, 256},
                                                      {50, 3, 1, 40}})
    for (const int variant : {0, 1, 2, 3}) {
      INFO(seq_len, " tokens, ", heads, "/", kv_heads, " heads of ", dim, ", variant ", variant);
      AttendOptions o{.n_heads = heads, .n_kv_heads = kv_heads, .head_dim = dim};
      if (variant == 1) o.window = 17;
      if (variant == 3) o.causal = false;
      halfcheck({{'x', {2, seq_len, (heads + 2 * kv_heads) * dim}}},
                [&, n = seq_len](Context& cx, Inputs& in) {
                  const int64_t q = o.n_heads * o.head_dim, kv = o.n_kv_heads * o.head_dim;
                  return attend(cx, cx.columns(in[0], 0, q), cx.columns(in[0], q, kv),
                                cx.columns(in[0], q + kv, kv), o,
                                variant == 2 ? documents(cx, 2, n) : Tensor{});
                });
    }
}

TEST_CASE("bf16: elementwise operations, rope and softmax") {
  for (const int64_t d : {7, 64, 300}) {
    for (const Activation act : {Activation::silu, Activation::relu2, Activation::gelu}) {
      halfcheck({{'x', {19, d}}},
                [&](Context& cx, Inputs& in) { return activation(cx, in[0], act); });
      halfcheck({{'x', {19, d}}, {'x', {19, d}}},
                [&](Context& cx, Inputs& in) { return gated(cx, in[0], in[1], act); });
    }
    halfcheck({{'x', {19, d}}, {'x', {19, d}}}, [](Context& cx, Inputs& in) {
      return mul(cx, add(cx, in[0], in[1]), scale(cx, in[1], 1.25));
    });
    halfcheck({{'x', {19, d}}}, [](Context& cx, Inputs& in) { return softmax(cx, in[0], 1.5); });
  }
  for (const int64_t rotary : {0, 8})
    halfcheck({{'x', {2, 9, 64}}}, [=](Context& cx, Inputs& in) {
      const Tensor place = ints(cx, {2, 9}, [](int64_t i) { return int32_t(i * i % 1000); });
      return rope(cx, in[0], place, {.head_dim = 16, .rotary_dim = rotary});
    });
}

TEST_CASE("bf16: embedding, gather and scatter_add") {
  halfcheck({{'w', {50, 72}}}, [](Context& cx, Inputs& in) {
    return embedding(cx, ints(cx, {3, 40}, [](int64_t i) { return int32_t(i * 7 % 50); }), in[0]);
  });
  halfcheck({{'x', {40, 72}}}, [](Context& cx, Inputs& in) {
    return gather(cx, in[0], ints(cx, {90}, [](int64_t i) { return int32_t(i * 11 % 40); }));
  });
  halfcheck({{'x', {90, 72}}}, [](Context& cx, Inputs& in) {
    return scatter_add(cx, in[0], ints(cx, {90}, [](int64_t i) { return int32_t(i * 11 % 40); }),
                       40);
  });
}

TEST_CASE("bf16: decay scans, with documents") {
  const auto decay = [](Random& draw) { return 0.5 + 0.5 * draw.uniform(); };
  for (const bool docs : {false, true}) {
    halfcheck({{'x', {2, 70, 40}, decay}, {'x', {2, 70, 40}}}, [=](Context& cx, Inputs& in) {
      TestPass pass(2);
      if (docs) pass.set_seq_idx(documents(cx, 2, 70));
      return decay_scan(cx, in[0], in[1], pass);
    });
    halfcheck({{'x', {2, 70, 2}, decay},
               {'x', {2, 70, 2, 16}},
               {'x', {2, 70, 2, 24}},
               {'x', {2, 70, 2, 16}}},
              [=](Context& cx, Inputs& in) {
                TestPass pass(2);
                if (docs) pass.set_seq_idx(documents(cx, 2, 70));
                return decay_scan_outer(cx, in[0], in[1], in[2], in[3], pass);
              });
  }
}

TEST_CASE("bf16: the LM head and its loss") {
  const int64_t rows = 70, d = 64, vocab = 200;
  const auto losses = [&](Device device, DType type) {
    Memory memory(device, size_t{64} << 20, size_t{64} << 20);
    Context cx(memory, type);
    cx.set_recording(true);
    Random draw(3, 1);
    std::vector<double> h, w;
    for (int64_t i = 0; i < rows * d; ++i) h.push_back(draw.normal());
    for (int64_t i = 0; i < vocab * d; ++i) w.push_back(draw.normal() / 8);
    ParamSlot slot;
    Tensor th = cx.alloc({rows, d}), tw = cx.alloc({vocab, d});
    write(th, rounded(h, DType::bf16));
    write(tw, rounded(w, DType::bf16));
    slot.value = tw;
    slot.grad = cx.alloc({vocab, d}, cx.accum_dtype());
    write(slot.grad, std::vector<double>(w.size(), 0));
    tw.param = slot.value.param = &slot;
    th = cx.track(th);
    std::vector<int32_t> id;
    for (int64_t i = 0; i < rows; ++i)
      id.push_back(i % 9 == 4 ? kNoLabel : int32_t(i * 37 % vocab));
    const Tensor labels = cx.alloc({rows}, DType::i32), inverse = cx.alloc({1}, DType::f64);
    assign_from_host(labels, id.data());
    write(inverse, {1.0 / double(rows)});
    const LmHeadLoss loss = lm_head_loss(cx, th, tw, labels, inverse, {.chunk = 32});
    return std::tuple{numbers_of(loss.loss)[0], numbers_of(cx.grad(th)), numbers_of(slot.grad)};
  };
  if (test_device().kind == DeviceKind::cpu) {
    CHECK_THROWS_AS(losses({}, DType::bf16), MissingKernel);
    return;
  }
  const auto [want, dh, dw] = losses({}, DType::f64);
  const auto [got, half_dh, half_dw] = losses(test_device(), DType::bf16);
  CHECK(got == doctest::Approx(want).epsilon(2e-3));
  CHECK(l2_distance(half_dh, dh) <= 1.2e-2);
  CHECK(l2_distance(half_dw, dw) <= 1.2e-2);
}
