#include "experiments/cli/progress.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <sstream>

using namespace strata;

TEST_CASE("progress says the time left at the recent pace") {
  std::ostringstream out;
  double now = 0;
  Progress progress(out, ProgressStyle::lines, "M*", 1000, 0, [&] { return now; });
  CHECK(std::isnan(progress.seconds_left()));
  for (int step = 1; step <= 500; ++step) {
    now += 0.25;
    progress.update(step, "loss 2.0");
  }
  CHECK(progress.seconds_left() == doctest::Approx(125));
  const std::string text = out.str();
  CHECK(text.find("M*  100 of 1,000, 3 min 45 s left, loss 2.0\n") != std::string::npos);
  CHECK(std::count(text.begin(), text.end(), '\n') <= 6);
  CHECK(out.str().find('\r') == std::string::npos);
}

TEST_CASE("a resumed run counts only its own steps") {
  std::ostringstream out;
  double now = 100;
  Progress progress(out, ProgressStyle::lines, "run", 1000, 900, [&] { return now; });
  now += 10;
  progress.update(950);
  CHECK(progress.seconds_left() == doctest::Approx(10));
}

TEST_CASE("short work outside a terminal is one line, quiet work none") {
  double now = 0;
  std::ostringstream out, none;
  {
    Progress progress(out, ProgressStyle::lines, "run", 100, 0, [&] { return now; });
    Progress quiet(none, ProgressStyle::quiet, "run", 100, 0, [&] { return now; });
    for (int step = 1; step <= 100; ++step) {
      now += 0.01;
      progress.update(step);
      quiet.update(step);
    }
    quiet.line("text");
  }
  CHECK(out.str() == "run  100 of 100, took 1.0 s\n");
  CHECK(none.str().empty());
}

TEST_CASE("a bar redraws in place and leaves no trace") {
  double now = 0;
  std::ostringstream out;
  {
    Progress progress(out, ProgressStyle::bar, "run", 3, 0, [&] { return now; });
    now = 1;
    progress.update(1);
    progress.line("done: M*");
    progress.update(3);
  }
  CHECK(out.str().find("\r\033[2Kdone: M*\n") != std::string::npos);
  CHECK(out.str().find("████████ ") != std::string::npos);
  CHECK(out.str().ends_with("\r\033[2K"));
}
