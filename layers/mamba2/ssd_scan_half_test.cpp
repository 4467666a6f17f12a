// The scan in bf16 against float64, where the tests run on a device that has bf16.
#include "core/ops/named_op.h"
#include "plugins/host/registry.h"
#include "tests/core/ops/halfcheck.h"

using namespace strata;
using namespace strata::test;

namespace {

struct ScanCase {
  int64_t batch, seq_len, heads, dim, groups, states;
};

void check_scan(const ScanCase& c) {
  INFO(c.batch, " x ", c.seq_len, ", ", c.heads, " heads of ", c.dim, ", ", c.groups,
       " groups, d_state ", c.states);
  static const std::unique_ptr<Layer> kept = [] {
    Registry registry;
    registry.use_device(test_device());
    return registry.create("mamba2", LayerConfig(64, 1, {}, "test"));
  }();
  const NamedOp scan = find_named_op("ssd_scan");
  REQUIRE(bool(scan));
  const auto step = [](Random& draw) { return 0.5 * draw.normal() - 2; };
  halfcheck({{'x', {c.batch, c.seq_len, c.heads, c.dim}},
             {'x', {c.batch, c.seq_len, c.heads}, step},
             {'x', {c.batch, c.seq_len, c.groups, c.states}},
             {'x', {c.batch, c.seq_len, c.groups, c.states}},
             {'a', {c.heads}},
             {'a', {c.heads}},
             {'a', {c.heads}}},
            [scan](Context& cx, Inputs& in) {
              NamedCall call{cx,
                             {{"x", in[0]},
                              {"dt_raw", in[1]},
                              {"B", in[2]},
                              {"C", in[3]},
                              {"A_log", in[4]},
                              {"D", in[5]},
                              {"dt_bias", in[6]}},
                             {},
                             {}};
              scan(call);
              return call.out["y"];
            });
}

}  // namespace

TEST_CASE("bf16: ssd_scan, ragged chunks, groups, and sizes of every kind") {
  for (const int64_t seq_len : {1, 2, 63, 64, 65, 129, 300})
    check_scan({2, seq_len, 4, 64, 2, 128});
  check_scan({1, 257, 16, 80, 8, 128});
  check_scan({3, 100, 4, 128, 1, 64});
  check_scan({1, 70, 2, 24, 1, 16});
  check_scan({1, 70, 4, 64, 2, 256});
  check_scan({2, 33, 3, 40, 3, 40});
}
