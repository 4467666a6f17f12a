#include "experiments/run/run_folder.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/support/temp_folder.h"

using namespace strata;

TEST_CASE("a summary is read back as it was written") {
  const test::TempFolder folder;
  CHECK(!read_summary(folder.path()));
  RunSummary s;
  s.outcome = "diverged";
  s.message = "loss is NaN at block 2 \"M\"";
  s.metric_name = "accuracy";
  s.metric = std::nan("");
  s.steps = 123;
  s.seconds = 4.5;
  s.parameters = 1'000'000;
  s.config_hash = "0123456789abcdef";
  write_summary(folder.path(), s);
  const auto back = read_summary(folder.path());
  REQUIRE(back);
  CHECK(back->outcome == "diverged");
  CHECK(back->message == s.message);
  CHECK(std::isnan(back->metric));
  CHECK(back->steps == 123);
  CHECK(back->seconds == 4.5);
  CHECK(back->config_hash == s.config_hash);
  folder.write("result.json", "{\"outcome\": 3");
  CHECK(!read_summary(folder.path()));
}

TEST_CASE("curves come from the evaluation lines, broken lines are passed over") {
  const test::TempFolder folder;
  folder.write("metrics.jsonl",
               "{\"step\": 10, \"loss\": 2.0}\n"
               "{\"step\": 20, \"eval_loss\": 1.5, \"eval_accuracy\": 0.25}\n"
               "{\"step\": 30, \"loss\": 1.0}\n"
               "{\"step\": 40, \"eval_loss\": 1.0, \"eval_accuracy\": 0.5}\n"
               "{\"step\": 1e300, \"eval_accuracy\": 1.0}\n"
               "{\"step\": 50, \"eval_accuracy\": 0.");
  const auto curve = read_curve(folder.path(), "accuracy");
  REQUIRE(curve.size() == 2);
  CHECK(curve[1].step == 40);
  CHECK(curve[1].value == 0.5);
  CHECK(last_step(folder.path()) == 40);
  CHECK(last_step(folder / "nothing") == 0);
  CHECK(read_curve(folder / "nothing", "accuracy").empty());
}
