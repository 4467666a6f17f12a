// The table and the JSON of the device rows, and the times to compare with.
#include "tests/bench/device/table.h"

#include <doctest/doctest.h>

#include "tests/support/error_text.h"

using namespace strata;
using namespace strata::bench;
using strata::test::error_text;

namespace {

const Ceilings kCard{"NVIDIA H100", 800e12, 3e12};

Result row(double seconds, const Work& work, double tokens = 0) {
  return {"ssd_forward/8x8192", {seconds, work, tokens, 0}, "", {}};
}

Peers peers_of(const std::string& text) {
  Peers peers;
  add_peers(peers, parse_json(text, "p.json"), "p.json");
  return peers;
}

}  // namespace

TEST_CASE("bench table: ms, floor, reached, rate, peer and ratio") {
  Result r = row(4e-3, {1e12, 3e9});
  std::string line = table_line(r, kCard);
  CHECK(line.find("ssd_forward/8x8192 ") == 0);
  CHECK(line.find(" 4.000 ") != std::string::npos);
  CHECK(line.find(" 1.250 ") != std::string::npos);  // of the flops
  CHECK(line.find("    31%") != std::string::npos);
  CHECK(line.find("250.0 TFLOP/s") != std::string::npos);
  r.peer = PeerTime{6e-3, "mamba_ssm", "NVIDIA H100"};
  line = table_line(r, kCard);
  CHECK(line.find(" 6.000   1.50  mamba_ssm") != std::string::npos);
  CHECK(line.find(" on ") == std::string::npos);
  r.peer->card = "NVIDIA H200";
  CHECK(table_line(r, kCard).ends_with("mamba_ssm on NVIDIA H200"));
  CHECK(table_line(row(1e-3, {0, 3e9}), kCard).find("3000 GB/s") != std::string::npos);
  CHECK(table_line(row(0.5, {1e12, 0}, 32768), kCard).find("65.54k tok/s") != std::string::npos);
  Result failed{"x/1", {}, "no kernel", {}};
  CHECK(table_line(failed, kCard).ends_with(" no kernel"));
}

TEST_CASE("bench table: columns stand under their heads") {
  const std::string head = table_head(kCard, "bf16");
  CHECK(head.find("reads 3.00 TB/s, bf16 matmul 800 TFLOP/s; rows in bf16") != std::string::npos);
  const std::string names = head.substr(head.find('\n') + 1);
  Result r = row(123.4e-6, {1e9, 3e7});
  r.peer = PeerTime{2e-4, "torch", ""};
  const std::string line = table_line(r, kCard);
  const auto ends = [](const std::string& text, const std::string& word) {
    return text.find(word) + word.size();
  };
  CHECK(ends(names, " ms") == ends(line, "0.1234"));
  CHECK(ends(names, "floor ms") == ends(line, "0.01000"));
  CHECK(ends(names, "peer ms") == ends(line, "0.2000"));
  CHECK(ends(names, "ratio") == ends(line, "1.62"));
  CHECK(names.find("  peer", ends(names, "ratio")) == line.find("  torch"));
}

TEST_CASE("bench json: what was measured can be compared with") {
  Result measured = row(4e-3, {1e12, 3e9}, 65536), failed{"x/1", {}, "no kernel", {}};
  measured.peer = PeerTime{6e-3, "mamba_ssm", "NVIDIA H100"};
  const Json json = to_json({measured, failed}, kCard, "bf16");
  CHECK(json.at("card", "").as_string("") == "NVIDIA H100");
  CHECK(json.at("read_bytes_per_second", "").as_double("") == 3e12);
  const auto& rows = json.at("rows", "").as_array("");
  REQUIRE(rows.size() == 2);
  CHECK(rows[0].at("ms", "").as_double("") == doctest::Approx(4));
  CHECK(rows[0].at("floor_ms", "").as_double("") == doctest::Approx(1.25));
  CHECK(rows[0].at("reached", "").as_double("") == doctest::Approx(0.3125));
  CHECK(rows[0].at("tokens_per_second", "").as_double("") == doctest::Approx(65536 / 4e-3));
  CHECK(rows[0].at("ratio", "").as_double("") == doctest::Approx(1.5));
  CHECK(rows[1].at("error", "").as_string("") == "no kernel");
  const Peers again = peers_of(json.dump());
  REQUIRE(again.size() == 1);
  CHECK(again.at("ssd_forward/8x8192").seconds == doctest::Approx(4e-3));
  CHECK(again.at("ssd_forward/8x8192").name == "an earlier run");
}

TEST_CASE("bench peers: later files win, bad ones are refused") {
  Peers peers = peers_of(R"({"card": "A", "rows": [{"name": "a", "ms": 2, "peer": "torch"}]})");
  add_peers(peers, parse_json(R"({"rows": [{"name": "a", "ms": 3.5}]})", "q"), "q");
  CHECK(peers.at("a").seconds == doctest::Approx(3.5e-3));
  CHECK(peers.at("a").card == "");
  CHECK(error_text([] { peers_of("{}"); }).find("p.json has no key") != std::string::npos);
  CHECK(error_text([] {
          peers_of(R"({"rows": [{"name": "a", "ms": 0}]})");
        }).find("ms of a must be positive") != std::string::npos);
}
