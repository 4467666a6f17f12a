// The floors of the rows against numbers worked out by hand.
#include "tests/bench/device/work.h"

#include <doctest/doctest.h>

using namespace strata::bench;

TEST_CASE("bench: a floor is the longer of bytes and flops") {
  const Ceilings c{"card", 100, 10};
  CHECK(floor_seconds({200, 10}, c) == doctest::Approx(2));
  CHECK(floor_seconds({200, 50}, c) == doctest::Approx(5));
  CHECK(bound_by_bytes({200, 50}, c));
  CHECK_FALSE(bound_by_bytes({200, 10}, c));
}

TEST_CASE("bench: the mixer of Nemotron-Nano at 8 x 8192") {
  const ScanShape s{8, 8192, 128, 80, 8, 128};
  CHECK(s.channels() == 12288);
  CHECK(s.projected() == 22656);
  // On 827 TFLOP/s and 4.53 TB/s: 0.656 ms of bytes and 1.28 ms of flops.
  const Ceilings h200{"", 827e12, 4.53e12};
  CHECK(floor_seconds(scan_forward_work(s, 2), h200) * 1e3 == doctest::Approx(0.656).epsilon(0.01));
  CHECK(bound_by_bytes(scan_forward_work(s, 2), h200));
  CHECK(floor_seconds(scan_backward_work(s, 2), h200) * 1e3 == doctest::Approx(1.28).epsilon(0.01));
  CHECK_FALSE(bound_by_bytes(scan_backward_work(s, 2), h200));
  CHECK(floor_seconds(mixer_forward_work(s, 2), h200) * 1e3 == doctest::Approx(0.95).epsilon(0.01));
  CHECK(floor_seconds(mixer_backward_work(s, 2), h200) * 1e3 ==
        doctest::Approx(1.61).epsilon(0.01));
  CHECK(conv_forward_work(s, 2).bytes == 4.0 * 65536 * 12288);
  CHECK(gated_norm_backward_work(s, 2).bytes == 10.0 * 65536 * 10240);
}

TEST_CASE("bench: attention, matmul and one-token floors") {
  const AttentionShape a{2, 8192, 40, 8, 128};
  const Ceilings h200{"", 827e12, 4.53e12};
  CHECK(floor_seconds(attention_forward_work(a, 2), h200) * 1e3 ==
        doctest::Approx(1.66).epsilon(0.01));
  CHECK(floor_seconds(attention_backward_work(a, 2), h200) * 1e3 ==
        doctest::Approx(4.15).epsilon(0.01));
  CHECK(attention_decode_work({1, 65536, 40, 8, 128}, 2).bytes == 4.0 * 65536 * 1024);
  CHECK(linear_work(3, 5, 7, 2).flops == 210);
  CHECK(linear_work(3, 5, 7, 2).bytes == 2.0 * (35 + 21 + 15));
  CHECK(linear_work(3, 5, 7, 2, 4).bytes == 2.0 * (140 + 21 + 15));
  const ScanShape one{64, 1, 128, 80, 8, 128};
  CHECK(state_update_work(one, 2).bytes ==
        8.0 * 64 * 10240 * 128 + 2.0 * 64 * (2 * 10240 + 2 * 1024 + 128));
  CHECK(conv_update_work(one, 2).bytes == 64.0 * 12288 * 2 * 8 + 12288.0 * 12);
}
