#include "tests/bench/device/table.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace strata::bench {

void add_peers(Peers& peers, const Json& file, const std::string& where) {
  const Json* card = file.find("card");
  for (const Json& row : file.at("rows", where).as_array(where + ": rows")) {
    const Json* ms = row.find("ms");
    if (!ms) continue;
    const std::string& name = row.at("name", where).as_string(where + ": name");
    const double value = ms->as_double(where + ": ms of " + name);
    if (!(value > 0) || !std::isfinite(value))
      throw Error(where + ": ms of " + name + " must be positive, got " + ms->describe());
    const Json* who = row.find("peer");
    peers[name] = {value * 1e-3, who && who->is_string() ? who->as_string(where) : "an earlier run",
                   card && card->is_string() ? card->as_string(where) : ""};
  }
}

template <class... Args>
static std::string text(const char* format, Args... args) {
  char line[400];
  std::snprintf(line, sizeof line, format, args...);
  return line;
}

// Three to four digits that matter, whatever the size.
static std::string digits(double x) {
  if (x <= 0) return "0";
  const int before = int(std::floor(std::log10(x))) + 1;
  return text("%.*f", std::clamp(4 - before, 0, 6), x);
}

std::string table_head(const Ceilings& c, const std::string& dtype) {
  return text("%s: reads %.2f TB/s, bf16 matmul %.0f TFLOP/s; rows in %s\n", c.card.c_str(),
              c.bytes * 1e-12, c.flops * 1e-12, dtype.c_str()) +
         text("%-32s %10s %10s %8s %14s %10s %6s  %s", "row", "ms", "floor ms", "reached", "rate",
              "peer ms", "ratio", "peer");
}

// Tokens where they count, else what the floor is made of.
static std::string rate(const Sample& s, const Ceilings& c) {
  if (s.tokens > 0) return digits(s.tokens / s.seconds * 1e-3) + "k tok/s";
  if (bound_by_bytes(s.work, c)) return digits(s.work.bytes / s.seconds * 1e-9) + " GB/s";
  return digits(s.work.flops / s.seconds * 1e-12) + " TFLOP/s";
}

std::string table_line(const Result& r, const Ceilings& c) {
  if (!r.error.empty()) return text("%-32s ", r.name.c_str()) + r.error;
  const Sample& s = r.sample;
  const double floor = floor_seconds(s.work, c);
  std::string line =
      text("%-32s %10s %10s %7.0f%% %14s", r.name.c_str(), digits(s.seconds * 1e3).c_str(),
           digits(floor * 1e3).c_str(), 100 * floor / s.seconds, rate(s, c).c_str());
  if (r.peer)
    line += text(" %10s %6.2f  %s", digits(r.peer->seconds * 1e3).c_str(),
                 r.peer->seconds / s.seconds, r.peer->name.c_str());
  if (r.peer && !r.peer->card.empty() && r.peer->card != c.card) line += " on " + r.peer->card;
  return line;
}

Json to_json(const std::vector<Result>& results, const Ceilings& c, const std::string& dtype) {
  Json rows = Json::array();
  for (const Result& r : results) {
    Json row = Json::object();
    row.set("name", r.name);
    if (!r.error.empty()) {
      rows.push(row.set("error", r.error));
      continue;
    }
    const Sample& s = r.sample;
    const double floor = floor_seconds(s.work, c);
    row.set("ms", s.seconds * 1e3).set("floor_ms", floor * 1e3).set("reached", floor / s.seconds);
    row.set("flops", s.work.flops).set("bytes", s.work.bytes);
    if (s.tokens > 0) row.set("tokens_per_second", s.tokens / s.seconds);
    if (s.plan_bytes > 0) row.set("plan_bytes", int64_t(s.plan_bytes));
    if (r.peer)
      row.set("peer_ms", r.peer->seconds * 1e3)
          .set("ratio", r.peer->seconds / s.seconds)
          .set("peer_is", r.peer->name)
          .set("peer_card", r.peer->card);
    rows.push(std::move(row));
  }
  Json file = Json::object();
  file.set("card", c.card).set("dtype", dtype);
  file.set("read_bytes_per_second", c.bytes).set("matmul_flops_per_second", c.flops);
  return file.set("rows", std::move(rows));
}

}  // namespace strata::bench
