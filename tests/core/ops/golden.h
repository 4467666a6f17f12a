// Reads the operator references of tests/golden/ops and runs an operation against one of them.
#pragma once

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "core/io/safetensors.h"
#include "tests/core/ops/gradcheck.h"

namespace strata::test {

struct Golden {
  explicit Golden(const std::string& name)
      : file(std::string(STRATA_SOURCE_DIR) + "/tests/golden/ops/" + name + ".safetensors") {}

  Shape shape(const std::string& name) const {
    Shape s;
    for (int64_t d : file.at(name).shape) s.dim[s.rank++] = d;
    if (s.rank == 0) s = {1};
    return s;
  }
  std::vector<double> values(const std::string& name) const { return values_of(file.at(name)); }

  // The tensors `inputs` ("in.x", ...) go in as variables; y must be `prefix + "y"`, and their
  // gradients under the cotangent must be `prefix + "grad.x"`, where the file has them.
  void check(const std::string& prefix, const std::vector<std::string>& inputs,
             const Build& build) const {
    INFO(prefix);
    for (DType type : {DType::f64, DType::f32}) {
      Bench b(type);
      b.cx.set_recording(true);
      Inputs in;
      for (const auto& name : inputs)
        in.push_back(b.cx.track(b.tensor(shape("in." + name), values("in." + name))));
      const Tensor y = build(b.cx, in);
      const double tolerance = type == DType::f64 ? 1e-11 : 1e-5;
      close(y, prefix + "y", tolerance);
      const GradTarget t = b.cx.grad_target(y);
      const bool given = file.find(prefix + "cotangent.y") != nullptr;
      const auto cotangent = given ? values(prefix + "cotangent.y") : std::vector<double>{};
      set_all(t.grad, [&](int64_t i) { return given ? cotangent[size_t(i)] : 1.0; });
      b.cx.replay(0);
      for (size_t i = 0; i < in.size(); ++i)
        if (file.find(prefix + "grad." + inputs[i]))
          close(b.cx.grad(in[i]), prefix + "grad." + inputs[i], tolerance * 10);
    }
  }

  // Relative to the largest value of the tensor.
  void close(const Tensor& got, const std::string& name, double tolerance) const {
    INFO(name, " in ", name_of(got.dtype));
    const auto want = values(name);
    CHECK(difference(test::values(got), want) <= tolerance * largest(want));
  }

  Safetensors file;
};

}  // namespace strata::test
