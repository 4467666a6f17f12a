#include "core/tensor/random.h"

#include <doctest/doctest.h>

using namespace strata;

// Known answers of Philox4x32-10 published with the Random123 library.
TEST_CASE("philox gives the published words") {
  CHECK(philox(0, 0, 0) == std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  const uint64_t ones = ~uint64_t{0};
  CHECK(philox(ones, ones, ones) ==
        std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
}

TEST_CASE("a stream can be entered at any index") {
  Random whole(7, 3);
  for (int i = 0; i < 8; ++i) whole.next_u32();
  Random late(7, 3, 2);
  CHECK(whole.next_u32() == late.next_u32());
}

TEST_CASE("draws below n are in range and cover it") {
  Random random(1, 2);
  int seen[7] = {};
  for (int i = 0; i < 7000; ++i) ++seen[random.below(7)];
  for (int count : seen) CHECK(count > 850);
}
