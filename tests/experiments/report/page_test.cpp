#include "experiments/report/page.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "core/io/file.h"
#include "experiments/report/chart.h"
#include "tests/support/error_text.h"
#include "tests/support/temp_folder.h"

using namespace strata;

namespace {

// Three variants, one of which lost a run.
StudyResult example() {
  StudyResult study;
  study.title = "Recall <needs> state";
  study.claims = {"One attention block removes the limit."};
  study.target = 0.99;
  study.floor = 1.0 / 16;
  study.chance = 1.0 / 64;
  const auto variant = [](const char* name, std::vector<double> metrics, const char* expect) {
    VariantResult v;
    v.name = v.pattern = name;
    v.parameters = 12345;
    v.expect = expect;
    v.cells = {{"c", "short_conv", "", "", {}}, {"*", "attention", "rope=false", "A", {}}};
    for (size_t i = 0; i < metrics.size(); ++i) {
      RunResult run;
      run.seed = i;
      run.metric = metrics[i];
      run.steps = 100 * int64_t(i + 1);
      run.seconds = 2;
      run.reached_target = metrics[i] >= 0.99;
      if (std::isnan(metrics[i])) run.outcome = "diverged", run.message = "loss, NaN at \"c\"";
      for (int64_t step = 50; step <= run.steps; step += 50)
        run.curve.push_back({step, metrics[i] * double(step) / double(run.steps)});
      v.runs.push_back(run);
    }
    return v;
  };
  study.variants = {variant("c*", {0.995, 0.998, 0.991}, ">= 0.99"),
                    variant("cM{d_state=2}", {0.05, 0.12, 0.06}, "<= 0.15"),
                    variant("MM", {0.9, NAN, 0.4}, ">= 0.98")};
  study.record = {{"command", "strata ablate quickstart.toml"}};
  summarize_study(study);
  return study;
}

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) ++n;
  return n;
}

}  // namespace

TEST_CASE("a study is summarised against its baseline") {
  const StudyResult study = example();
  CHECK(study.variants[0].against_baseline.verdict == Verdict::baseline);
  CHECK(study.variants[1].against_baseline.verdict == Verdict::loss);
  CHECK(study.variants[2].against_baseline.verdict == Verdict::tie);  // two seeds, wide interval
  CHECK(study.variants[2].n_ok == 2);
  CHECK(study.variants[0].success == 1.0);
  CHECK(study.variants[1].expected);
  CHECK(!study.variants[2].expected);
  CHECK(!study_holds(study));
  CHECK(keeps_bound(0.99, ">= 0.99"));
  CHECK(!keeps_bound(NAN, ">= 0.99"));
  CHECK(test::error_text([] { keeps_bound(1, "about 0.9"); }).find(">=") != std::string::npos);
  CHECK(test::error_text([] { keeps_bound(1, ">= x"); }).find("bound such as") !=
        std::string::npos);
}

TEST_CASE("the page is whole, escaped and needs no network") {
  const std::string html = to_html(example());
  CHECK(html.find("Recall &lt;needs&gt; state") != std::string::npos);
  CHECK(html.find("loss, NaN at &quot;c&quot;") != std::string::npos);
  CHECK(html.find("http") == std::string::npos);
  CHECK(html.find("src=") == std::string::npos);
  CHECK(html.find("nan") == std::string::npos);
  CHECK(html.find("inf") == std::string::npos);
  CHECK(html.find("0.995 ± 0.009") != std::string::npos);
  CHECK(html.find("<span class=\"scale\"><span>0</span><span>1</span>") != std::string::npos);
  CHECK(count(html, "<span class=\"cell k1 shared\"") == 3);
  CHECK(count(html, "<polyline") == 3);
  for (const char* tag : {"table", "div", "svg", "tr", "td", "span", "ul", "g", "figure"})
    CHECK(count(html, "<" + std::string(tag) + ">") + count(html, "<" + std::string(tag) + " ") ==
          count(html, "</" + std::string(tag) + ">"));
}

TEST_CASE("the terminal table and the CSV files say the same") {
  const StudyResult study = example();
  std::ostringstream table;
  to_table(study).print(table, false);
  CHECK(table.str().find("0.995 ± 0.009") != std::string::npos);
  CHECK(table.str().find("2 of 3") != std::string::npos);
  CHECK(table.str().find(">= 0.98 ✗") != std::string::npos);
  const std::string runs = runs_csv(study), rows = table_csv(study);
  CHECK(count(runs, "\n") == 10);
  CHECK(runs.find("MM,MM,12345,1,diverged,,0,200,2,\"loss, NaN at \"\"c\"\"\",0,0,\n") !=
        std::string::npos);
  const std::string header = rows.substr(0, rows.find('\n'));
  std::istringstream lines(rows);
  for (std::string line; std::getline(lines, line);) CHECK(count(line, ",") == count(header, ","));
  CHECK(count(curves_csv(study), "\n") == 1 + 3 * (2 + 4 + 6) - 4);  // no point without a number

  const test::TempFolder folder;
  const std::string path = write_report(study, folder / "report");
  CHECK(read_file(path) == to_html(study));
  CHECK(read_file(folder / "report/runs.csv") == runs);
}

TEST_CASE("ticks are round and inside") {
  CHECK(nice_ticks(0, 1, 5) == std::vector<double>{0, 0.2, 0.4, 0.6000000000000001, 0.8, 1});
  CHECK(nice_ticks(0, 1500, 6) == std::vector<double>{0, 500, 1000, 1500});
  CHECK(nice_ticks(3, 3, 5).size() == 1);
  CHECK(nice_ticks(1.13, 1.31, 4).size() == 4);
}

TEST_CASE("a band holds a curve that ended early") {
  const auto band = band_of({{{10, 0.5}, {20, 1.0}}, {{10, 0.1}, {20, NAN}, {30, 0.3}}});
  REQUIRE(band.size() == 3);
  CHECK(band[0].mean == doctest::Approx(0.3));
  CHECK(band[1].low == doctest::Approx(0.1));
  CHECK(band[2].mean == doctest::Approx(0.65));
  CHECK(band[2].high == 1.0);
}
