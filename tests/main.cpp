#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <cstdlib>

#include "core/tensor/device.h"
#include "plugins/host/loader.h"
#include "tests/test_device.h"

strata::Device strata::test::test_device() {
  static const Device device = [] {
    const char* name = std::getenv("STRATA_TEST_DEVICE");
    const Device d = name ? parse_device(name) : Device{};
    if (d.kind == DeviceKind::cuda) load_cuda_library();
    return d;
  }();
  return device;
}
