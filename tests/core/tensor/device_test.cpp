#include "core/tensor/device.h"

#include <doctest/doctest.h>

#include <cstring>

#include "core/tensor/memory.h"
#include "tests/support/null_driver.h"

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

TEST_CASE("several devices are of one kind, and each is named once") {
  CHECK(parse_devices("cpu").allows(Device{}));
  CHECK(!parse_devices("cpu").allows({DeviceKind::cuda, 0}));
  CHECK(parse_devices("cuda").allows({DeviceKind::cuda, 7}));
  const DeviceChoice two = parse_devices("cuda:0,cuda:2");
  CHECK(two.kind == DeviceKind::cuda);
  CHECK(two.indices == std::vector<int>{0, 2});
  CHECK(!two.allows({DeviceKind::cuda, 1}));
  for (const char* bad : {"cuda:0,cpu", "cuda:0,cuda:0", "cuda:0,cuda", "cuda,cuda:1", "cpu,cpu"}) {
    CAPTURE(bad);
    CHECK_THROWS_WITH_AS(parse_devices(bad), doctest::Contains("distinct and of one kind"), Error);
  }
  for (const char* bad : {"", "cuda:0,", ",cuda:0", "cuda:0, cuda:1"}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(parse_devices(bad), Error);
  }
}

TEST_CASE("a driver counts what is reserved, and keeps the first failure") {
  DeviceDriver& cpu = driver_of({});
  const size_t before = cpu.peak_bytes();
  for (int i = 0; i < 3; ++i) const Block block(before + 4096, "numbers");
  CHECK(cpu.peak_bytes() >= before + 4096);
  CHECK(cpu.peak_bytes() < 2 * (before + 4096));

  struct Failing final : test::NullDriver {
    Failing() : NullDriver("cuda:3") {}
    void wait() override { fail(ErrorKind::lost, "it is gone"); }
  } driver;
  driver.note_launch("ssd_scan", "block 3 'M' (mamba2)");
  const auto failure = [&](auto call) {
    try {
      call();
    } catch (const Error& e) {
      CHECK(e.kind() == ErrorKind::lost);
      return std::string(e.what());
    }
    return std::string();
  };
  const std::string first = failure([&] { driver.wait(); });
  CHECK(first ==
        "device cuda:3 was lost at or before ssd_scan of block 3 'M' (mamba2): it is gone; this "
        "process cannot use it any more, what has been written stays good");
  driver.note_launch("relu", "block 4");
  CHECK(failure([&] { driver.fail(ErrorKind::fault, "another"); }) == first);
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
  CHECK(has_device_library(DeviceKind::cpu));
  if (has_device_library(DeviceKind::cuda)) return;
  CHECK_THROWS_WITH_AS(driver_of({DeviceKind::cuda, 0}), doctest::Contains("device cuda:0"), Error);
  CHECK(count_devices(DeviceKind::cuda).count == 0);
}
