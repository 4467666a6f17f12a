// A device that does nothing: what a test of its own driver begins with.
#pragma once

#include "core/tensor/device.h"

namespace strata::test {

struct NullDriver : DeviceDriver {
  explicit NullDriver(const std::string& name = "cuda:0") : DeviceDriver(name) {}
  std::string description() const override { return "nothing"; }
  DeviceFacts facts() const override { return {}; }
  size_t free_bytes() override { return 0; }
  Stream stream() const override { return {}; }
  void upload(void*, const void*, size_t) override {}
  void download(void*, const void*, size_t) override {}
  void copy(void*, const void*, size_t) override {}
  void clear(void*, size_t) override {}
  void wait() override {}
  void* do_reserve(size_t, const std::string&) override { return nullptr; }
  void do_release(void*, size_t) override {}
};

}  // namespace strata::test
