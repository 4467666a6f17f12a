#include "core/model/step_graphs.h"

#include <doctest/doctest.h>

#include <string>

#include "tests/support/null_driver.h"

using namespace strata;

namespace {

// A device that writes down what it is asked to do.
struct FakeDriver : test::NullDriver {
  struct Graph : DeviceGraph {
    explicit Graph(std::string& log) : log(log) {}
    void launch() override { log += "launch "; }
    std::string& log;
  };
  std::unique_ptr<DeviceGraph> record(const std::function<void()>& work) override {
    if (!records) return nullptr;
    log += "record ";
    work();
    return std::make_unique<Graph>(log);
  }
  bool records = true;
  std::string log;
};

Tensor numbered(int64_t n) { return view_of(nullptr, {n}, DType::f32); }

}  // namespace

TEST_CASE("a step runs plainly, is recorded when it comes again, and is replayed from then on") {
  FakeDriver driver;
  StepGraphs graphs;
  int64_t calls = 0;
  const auto work = [&] {
    driver.log += "work ";
    return numbered(++calls);
  };
  CHECK(graphs.run(driver, {1, 8}, work).numel() == 1);
  CHECK(driver.log == "work ");
  CHECK(graphs.run(driver, {1, 8}, work).numel() == 2);
  CHECK(driver.log == "work record work launch ");
  CHECK(graphs.run(driver, {1, 8}, work).numel() == 2);
  CHECK(driver.log == "work record work launch launch ");
  CHECK(graphs.run(driver, {1, 9}, work).numel() == 3);  // another shape
}

TEST_CASE("a device without graphs runs every step as it is") {
  FakeDriver driver;
  driver.records = false;
  StepGraphs graphs;
  int64_t calls = 0;
  for (int64_t i = 1; i <= 3; ++i)
    CHECK(graphs.run(driver, {0}, [&] { return numbered(++calls); }).numel() == i);
}

TEST_CASE("a step that throws while it is recorded is recorded again") {
  FakeDriver driver;
  StepGraphs graphs;
  bool fails = false;
  const auto work = [&] {
    if (fails) throw Error("out of order");
    return numbered(4);
  };
  graphs.run(driver, {0}, work);
  fails = true;
  CHECK_THROWS_AS(graphs.run(driver, {0}, work), Error);
  fails = false;
  CHECK(graphs.run(driver, {0}, work).numel() == 4);
  CHECK(driver.log == "record record launch ");
}

TEST_CASE("a replayed step is where a fault can have come from, whatever ran before it") {
  FakeDriver driver;
  StepGraphs graphs;
  const auto work = [&] {
    driver.note_launch("cross_entropy", "LM head");
    return numbered(1);
  };
  for (int i = 0; i < 2; ++i) graphs.run(driver, {0}, work);
  driver.note_launch("adamw", "optimizer");
  graphs.run(driver, {0}, work);
  CHECK(driver.last_launch().op == std::string("cross_entropy"));
  CHECK(driver.last_launch().place == "LM head");
}
