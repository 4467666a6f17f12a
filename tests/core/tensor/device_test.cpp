#include "core/tensor/device.h"

#include <doctest/doctest.h>

#include <cstring>

#include "core/tensor/memory.h"

using namespace strata;

TEST_CASE("names of devices are read and written") {
  CHECK(parse_device("cpu") == Device{});
  CHECK(parse_device("cuda") == Device{DeviceKind::cuda, 0});
  CHECK(parse_device("cuda:3") == Device{DeviceKind::cuda, 3});
  CHECK(to_string(parse_device("cuda:3")) == "cuda:3");
  CHECK(to_string(Device{}) == "cpu");
  for (const char* bad : {"", "cpu:1", "cuda:", "cuda:-1", "cuda:1x", "gpu", "cuda:99999999999"}) {
    CAPTURE(bad);
    CHECK_THROWS_WITH_AS(parse_device(bad), doctest::Contains("cpu, cuda or cuda:NUMBER"), Error);
  }
}

TEST_CASE("a host copy on the CPU is the tensor itself") {
  const Block block(64, "numbers");
  const Tensor t = view_of(block.data(), {2, 3}, DType::f32);
  const float numbers[] = {1, 2, 3, 4, 5, 6};
  assign_from_host(t, numbers);
  const HostCopy copy(t);
  CHECK(copy->data == t.data);
  CHECK(std::memcmp(copy->data, numbers, sizeof numbers) == 0);
}

TEST_CASE("a device whose library is not loaded is refused by name") {
  if (has_device_library(DeviceKind::cuda)) return CHECK(has_device_library(DeviceKind::cpu));
  CHECK_THROWS_WITH_AS(driver_of({DeviceKind::cuda, 0}), doctest::Contains("device cuda:0"), Error);
  CHECK(count_devices(DeviceKind::cuda).count == 0);
}
