#include "experiments/report/chart.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>

namespace strata {
namespace {

constexpr double kWidth = 1000, kHeight = 400;
constexpr double kLeft = 58, kRight = 92, kTop = 16, kBottom = 48;

std::string number(double value) {
  char text[48];
  std::snprintf(text, sizeof text, "%.1f", value);
  return text;
}

std::string tick_text(double value) {
  char text[48];
  std::snprintf(text, sizeof text, "%.6g", std::abs(value) < 1e-12 ? 0 : value);
  return text;
}

// Maps data to the plane of the drawing.
struct Frame {
  double x_max = 1, y_min = 0, y_max = 1;
  double x(double step) const { return kLeft + (kWidth - kLeft - kRight) * step / x_max; }
  double y(double value) const {
    const double share = (std::clamp(value, y_min, y_max) - y_min) / (y_max - y_min);
    return kHeight - kBottom - (kHeight - kTop - kBottom) * share;
  }
};

Frame frame_of(const Chart& chart, const std::vector<std::vector<BandPoint>>& bands) {
  Frame frame{0, INFINITY, -INFINITY};
  for (const auto& band : bands)
    for (const BandPoint& point : band) {
      frame.x_max = std::max(frame.x_max, double(point.step));
      frame.y_min = std::min(frame.y_min, point.low);
      frame.y_max = std::max(frame.y_max, point.high);
    }
  if (chart.y_max > chart.y_min) frame.y_min = chart.y_min, frame.y_max = chart.y_max;
  if (!(frame.x_max > 0)) frame.x_max = 1;
  if (!(frame.y_max >= frame.y_min)) frame.y_min = 0, frame.y_max = 1;
  if (frame.y_max == frame.y_min) frame.y_min -= 0.5, frame.y_max += 0.5;
  return frame;
}

std::string text_at(double x, double y, const std::string& anchor, const std::string& text,
                    const std::string& extra = "") {
  return "<text x=\"" + number(x) + "\" y=\"" + number(y) + "\" text-anchor=\"" + anchor + "\"" +
         extra + ">" + escape_html(text) + "</text>\n";
}

std::string line_at(const char* name, double x1, double y1, double x2, double y2) {
  return "<line class=\"" + std::string(name) + "\" x1=\"" + number(x1) + "\" y1=\"" + number(y1) +
         "\" x2=\"" + number(x2) + "\" y2=\"" + number(y2) + "\"/>\n";
}

std::string axes(const Chart& chart, const Frame& frame) {
  std::string out;
  const double bottom = kHeight - kBottom, right = kWidth - kRight;
  for (double tick : nice_ticks(frame.y_min, frame.y_max, 5)) {
    out += line_at("grid", kLeft, frame.y(tick), right, frame.y(tick));
    out += text_at(kLeft - 8, frame.y(tick) + 4, "end", tick_text(tick));
  }
  for (double tick : nice_ticks(0, frame.x_max, 6)) {
    out += line_at("axis", frame.x(tick), bottom, frame.x(tick), bottom + 5);
    out += text_at(frame.x(tick), bottom + 19, "middle", tick_text(tick));
  }
  out += line_at("axis", kLeft, bottom, right, bottom);
  out += text_at((kLeft + right) / 2, kHeight - 8, "middle", chart.x_title);
  const double middle = (kTop + bottom) / 2;
  out += text_at(14, middle, "middle", chart.y_title,
                 " transform=\"rotate(-90 14 " + number(middle) + ")\"");
  for (const ReferenceLine& reference : chart.references) {
    if (!(reference.value >= frame.y_min && reference.value <= frame.y_max)) continue;
    const double y = frame.y(reference.value);
    out += line_at("reference", kLeft, y, right, y);
    out += text_at(right + 6, y + 4, "start", reference.name + " " + tick_text(reference.value),
                   " class=\"note\"");
  }
  return out;
}

std::string drawn(const Series& series, const std::vector<BandPoint>& band, const Frame& frame,
                  size_t index) {
  if (band.empty()) return "";
  const std::string colour = "s" + std::to_string(index % kSeriesColours);
  const bool dashed = index / kSeriesColours % 2;
  std::string out = "<g class=\"" + colour + "\"><title>" + escape_html(series.name) + "</title>\n";
  if (series.curves.size() > 1) {
    out += "<polygon class=\"band\" points=\"";
    for (const BandPoint& p : band)
      out += number(frame.x(double(p.step))) + "," + number(frame.y(p.high)) + " ";
    for (auto p = band.rbegin(); p != band.rend(); ++p)
      out += number(frame.x(double(p->step))) + "," + number(frame.y(p->low)) + " ";
    out += "\"/>\n";
  }
  out += "<polyline class=\"line\"";
  if (dashed) out += " stroke-dasharray=\"6 3\"";
  out += " points=\"";
  for (const BandPoint& p : band)
    out += number(frame.x(double(p.step))) + "," + number(frame.y(p.mean)) + " ";
  out += "\"/>\n<circle class=\"dot\" r=\"3.5\" cx=\"" + number(frame.x(double(band.back().step))) +
         "\" cy=\"" + number(frame.y(band.back().mean)) + "\"/></g>\n";
  return out;
}

}  // namespace

std::string escape_html(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else if (c == '\'')
      out += "&#39;";
    else if (static_cast<unsigned char>(c) >= 32 || c == '\n')
      out += c;
  }
  return out;
}

std::vector<double> nice_ticks(double low, double high, int count) {
  if (!(high > low) || !std::isfinite(high - low)) return {low};
  const double rough = (high - low) / std::max(count, 1);
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (double factor : {1.0, 2.0, 5.0})
    if (factor * power >= rough * (1 - 1e-9)) {
      step = factor * power;
      break;
    }
  std::vector<double> ticks;
  const double slack = 1e-9 * (high - low);
  for (double k = std::ceil((low - slack) / step); k * step <= high + slack; ++k)
    ticks.push_back(k * step);
  return ticks;
}

std::vector<BandPoint> band_of(const std::vector<std::vector<CurvePoint>>& curves) {
  std::set<int64_t> steps;
  for (const auto& curve : curves)
    for (const CurvePoint& point : curve)
      if (std::isfinite(point.value)) steps.insert(point.step);
  std::vector<BandPoint> band;
  for (int64_t step : steps) {
    BandPoint out{step, 0, INFINITY, -INFINITY};
    int n = 0;
    for (const auto& curve : curves) {
      const CurvePoint* latest = nullptr;  // the last point at or before the step
      for (const CurvePoint& point : curve)
        if (point.step <= step && std::isfinite(point.value)) latest = &point;
      if (!latest) continue;
      out.mean += latest->value;
      out.low = std::min(out.low, latest->value);
      out.high = std::max(out.high, latest->value);
      ++n;
    }
    out.mean /= n;
    band.push_back(out);
  }
  return band;
}

std::string to_svg(const Chart& chart) {
  std::vector<std::vector<BandPoint>> bands;
  for (const Series& series : chart.series) bands.push_back(band_of(series.curves));
  const Frame frame = frame_of(chart, bands);
  std::string out = "<svg class=\"chart\" viewBox=\"0 0 " + number(kWidth) + " " + number(kHeight) +
                    "\" role=\"img\" aria-label=\"" + escape_html(chart.title) + "\">\n";
  out += axes(chart, frame);
  for (size_t i = 0; i < chart.series.size(); ++i)
    out += drawn(chart.series[i], bands[i], frame, i);
  return out + "</svg>\n";
}

}  // namespace strata
