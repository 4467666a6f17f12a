#include "experiments/report/table.h"

#include <doctest/doctest.h>

#include <cmath>
#include <sstream>

using namespace strata;

TEST_CASE("a table is aligned and coloured only when asked") {
  Table table({{"pattern"}, {"accuracy", true}, {"verdict"}});
  table.add({{"M*"}, {"0.998 ± 0.002"}, {"win", Tone::good}});
  table.add({{"M-M*-"}, {"-"}});
  std::ostringstream plain, colour;
  table.print(plain, false);
  CHECK(plain.str() ==
        "  pattern       accuracy  verdict\n"
        "  ───────  ─────────────  ───────\n"
        "  M*       0.998 ± 0.002  win\n"
        "  M-M*-                -\n");
  table.print(colour, true);
  CHECK(colour.str().find("\033[32mwin\033[0m") != std::string::npos);
  CHECK(plain.str().find('\033') == std::string::npos);
}

TEST_CASE("numbers read well") {
  CHECK(with_commas(0) == "0");
  CHECK(with_commas(999) == "999");
  CHECK(with_commas(1000) == "1,000");
  CHECK(with_commas(-1234567) == "-1,234,567");
  CHECK(with_commas(-123) == "-123");
  CHECK(duration_text(0.0084) == "8 ms");
  CHECK(duration_text(0.9999) == "1.0 s");
  CHECK(duration_text(3.2) == "3.2 s");
  CHECK(duration_text(245) == "4 min 05 s");
  CHECK(duration_text(7380) == "2 h 03 min");
  CHECK(duration_text(3599.9) == "1 h 00 min");
  CHECK(fixed_text(std::nan(""), 3) == "-");
  CHECK(fixed_text(0.98765, 3) == "0.988");
  CHECK(display_width("0.9 ± 0.1") == 9);
}
