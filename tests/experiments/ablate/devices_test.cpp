#include "experiments/ablate/devices.h"

#include <doctest/doctest.h>

#include "experiments/cli/study_devices.h"

using namespace strata;

namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

// A device that holds `runs` runs of 100 MiB beside their contexts.
StudyDevice device(int index, int64_t slots, int64_t runs) {
  StudyDevice d;
  d.device = {DeviceKind::cuda, index};
  d.slots = slots;
  d.free_bytes = runs * (100 * kMiB + kContextBytes);
  return d;
}

const DeviceChoice kAny{DeviceKind::cuda, {}};

}  // namespace

TEST_CASE("runs go to the device with the fewest, as many as its slots and its memory hold") {
  DevicePool pool({device(0, 4, 2), device(1, 3, 100)}, 0);
  CHECK(pool.at_once(100 * kMiB) == 5);
  std::vector<int> order;
  while (const auto place = pool.find(kAny, 100 * kMiB)) {
    pool.start(*place, 100 * kMiB);
    order.push_back(pool.device(*place).index);
  }
  CHECK(order == std::vector<int>{0, 1, 0, 1, 1});
  pool.end(0, 100 * kMiB);
  CHECK(!pool.find(kAny, 101 * kMiB));  // the context counts, and so does every byte
  CHECK(pool.find(kAny, 100 * kMiB) == 0);
  CHECK(!pool.find({DeviceKind::cuda, {1}}, kMiB));  // its slots are taken
  CHECK(!pool.find({DeviceKind::cpu, {0}}, kMiB));
}

TEST_CASE("a run that no device holds gets an empty one, where it says so itself") {
  DevicePool pool({device(0, 4, 2)}, 0);
  CHECK(pool.find(kAny, int64_t{1} << 50) == 0);
  CHECK(pool.at_once(int64_t{1} << 50) == 1);
  pool.start(0, int64_t{1} << 50);
  CHECK(!pool.find(kAny, kMiB));
}

TEST_CASE("a limit holds over all devices, and memory that is not known sets none") {
  StudyDevice open = device(0, 3, 0), other = device(1, 3, 0);
  DevicePool pool({open, other}, 4);
  CHECK(pool.at_once(int64_t{1} << 60) == 4);
  for (int i = 0; i < 4; ++i) pool.start(pool.find(kAny, kMiB).value(), kMiB);
  CHECK(!pool.find(kAny, kMiB));
}

TEST_CASE("nothing starts on a device that was lost") {
  DevicePool pool({device(0, 1, 1), device(1, 1, 1)}, 0);
  const DeviceChoice first{DeviceKind::cuda, {0}};
  CHECK(pool.serves(first));
  pool.lose(0);
  CHECK(!pool.serves(first));
  CHECK(pool.serves(kAny));
  CHECK(pool.find(kAny, kMiB) == 1);
  CHECK(pool.losses(first) == "device cuda:0 was lost");
  pool.lose(1);
  CHECK(pool.losses(kAny) == "devices cuda:0, cuda:1 were lost");
  CHECK(!pool.find(kAny, kMiB));
}

TEST_CASE("devices are read from what doctor says") {
  std::string why;
  const auto devices = parse_doctor(
      R"([{"what": "cpu", "state": "2 threads", "missing": false},
          {"what": "cuda:0", "state": "an old card", "missing": true},
          {"what": "cuda:1", "state": "a card", "missing": false, "free_bytes": 123},
          {"what": "  cuBLAS", "state": "a file", "missing": false}])",
      why);
  REQUIRE(devices.size() == 1);
  CHECK(devices[0].device == Device{DeviceKind::cuda, 1});
  CHECK(devices[0].free_bytes == 123);
  CHECK(why == "an old card");
}
