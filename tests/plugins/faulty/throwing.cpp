// y = W x, until the step-th forward that computes throws what a device would.
#include "core/contract/plugin.h"
#include "core/ops/linear.h"

namespace strata {

class Throwing final : public Layer {
 public:
  explicit Throwing(const Config& c)
      : w_(param("w", {c.d_model(), c.d_model()})),
        kind_(c.get("kind", "fault", "resource, device, fault or lost")),
        step_(c.get("step", 1, "the forward that throws")) {}

  Tensor forward(Context& cx, Tensor x, Pass& pass) override {
    if (!cx.planning() && pass.mode() == Mode::train && ++steps_ == step_)
      throw Error("the device says " + kind_, kind_ == "resource" ? ErrorKind::resource
                                              : kind_ == "device" ? ErrorKind::device
                                              : kind_ == "fault"  ? ErrorKind::fault
                                                                  : ErrorKind::lost);
    return linear(cx, x, w_);
  }

 private:
  Param w_;
  std::string kind_;
  int64_t step_, steps_ = 0;
};

}  // namespace strata

using strata::Throwing;
STRATA_LAYER(Throwing, 'X', "throwing")
