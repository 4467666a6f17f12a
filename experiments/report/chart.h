// Line charts as SVG text. Colours are classes (s0 ... s7) and currentColor, so that the page that
// holds a chart decides how it looks in the light, in the dark and on paper.
#pragma once

#include <string>
#include <vector>

#include "experiments/report/study.h"

namespace strata {

inline constexpr int kSeriesColours = 8;

// Some curves of one thing: one per seed. The line is their mean, the band goes from their least to
// their greatest. A curve that ended early (it reached its target) is held at its last value.
struct Series {
  std::string name;
  std::vector<std::vector<CurvePoint>> curves;
};

struct ReferenceLine {
  std::string name;
  double value = 0;
};

struct Chart {
  std::string title, x_title, y_title;
  double y_min = 0, y_max = 0;  // equal: from the data
  std::vector<Series> series;
  std::vector<ReferenceLine> references;
};

// A self-contained <svg> element. Values that are no numbers are left out.
std::string to_svg(const Chart& chart);

// Round numbers (1, 2 or 5 times a power of ten apart) that lie in [low, high], about `count`.
std::vector<double> nice_ticks(double low, double high, int count);

// Mean, least and greatest of the curves at every step that one of them has.
struct BandPoint {
  int64_t step = 0;
  double mean = 0, low = 0, high = 0;
};
std::vector<BandPoint> band_of(const std::vector<std::vector<CurvePoint>>& curves);

// `text` with & < > " ' as entities.
std::string escape_html(const std::string& text);

}  // namespace strata
