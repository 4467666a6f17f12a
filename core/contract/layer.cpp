#include "core/contract/layer.h"

namespace strata {

Pass::~Pass() = default;

void Pass::publish_pages(std::string_view, std::string_view) {}

void Pass::same_as(std::string_view, std::string_view published) {
  throw Error("no earlier block publishes pages as '" + std::string(published) + "'");
}

Layer::Layer() = default;
Layer::~Layer() = default;

Tensor Layer::backward(Context& cx, Tensor dy, Pass& pass) {
  cx.set_grad(pass.output, dy);
  cx.replay(pass.tape_begin);
  return cx.grad(pass.input);
}

std::vector<StateSpec> Layer::state() const { return {}; }

QuantChoice Layer::quantize(const ParamSlot& param) const {
  const bool projection = !param.is_buffer && param.shape.rank >= 2 &&
                          param.options.keep == Keep::compute && param.shape[-1] > 1 &&
                          param.name.find("conv") == std::string::npos;
  return {projection, Sensitivity::normal};
}

void Layer::after_step(Context&, const StepCounts&) {}

static Param declare(std::deque<ParamSlot>& params, std::string_view name, const Shape& shape,
                     ParamOptions options, bool is_buffer) {
  for (const ParamSlot& p : params)
    if (p.name == name) throw Error("parameter '" + std::string(name) + "' is declared twice");
  for (int i = 0; i < shape.rank; ++i)
    if (shape[i] <= 0)
      throw Error("parameter '" + std::string(name) + "' has shape " + to_string(shape) +
                  "; every dimension must be at least 1");
  params.push_back({std::string(name), shape, std::move(options), is_buffer, {}, {}});
  return Param(&params.back());
}

Param Layer::param(std::string_view name, const Shape& shape, ParamOptions options) {
  return declare(params_, name, shape, std::move(options), false);
}

Param Layer::buffer(std::string_view name, const Shape& shape, ParamOptions options) {
  return declare(params_, name, shape, std::move(options), true);
}

// ----------------------------------------------------------------------------------- LayerConfig
LayerConfig::LayerConfig(int64_t d_model, int64_t n_blocks, Options given, std::string place,
                         int64_t d_in)
    : d_model_(d_model),
      d_in_(d_in ? d_in : d_model),
      n_blocks_(n_blocks),
      given_(std::move(given)),
      place_(std::move(place)) {}

const OptionValue* LayerConfig::find(std::string_view key, const OptionValue& fallback,
                                     std::string_view help) const {
  const auto it = given_.find(key);
  const OptionValue* value = it == given_.end() ? nullptr : &it->second;
  reads_.push_back({std::string(key), fallback, value ? *value : fallback, std::string(help)});
  return value;
}

[[noreturn]] static void refuse(const LayerConfig& c, std::string_view key, const char* expected,
                                const OptionValue& got) {
  throw Error(c.place() + ": option '" + std::string(key) + "' must be " + expected + ", got " +
              to_string(got) + " (" + type_name(got) + ")");
}

int64_t LayerConfig::get(std::string_view key, int64_t fallback, std::string_view help) const {
  const OptionValue* v = find(key, fallback, help);
  if (!v) return fallback;
  if (const int64_t* i = std::get_if<int64_t>(v)) return *i;
  refuse(*this, key, "an integer", *v);
}

double LayerConfig::get(std::string_view key, double fallback, std::string_view help) const {
  const OptionValue* v = find(key, fallback, help);
  if (!v) return fallback;
  if (const double* d = std::get_if<double>(v)) return *d;
  if (const int64_t* i = std::get_if<int64_t>(v)) return double(*i);
  refuse(*this, key, "a number", *v);
}

bool LayerConfig::get(std::string_view key, bool fallback, std::string_view help) const {
  const OptionValue* v = find(key, fallback, help);
  if (!v) return fallback;
  if (const bool* b = std::get_if<bool>(v)) return *b;
  refuse(*this, key, "true or false", *v);
}

std::string LayerConfig::get(std::string_view key, const char* fallback,
                             std::string_view help) const {
  const OptionValue* v = find(key, std::string(fallback), help);
  if (!v) return fallback;
  if (const std::string* s = std::get_if<std::string>(v)) return *s;
  refuse(*this, key, "a string", *v);
}

int64_t LayerConfig::size(std::string_view key, int64_t fallback, std::string_view help) const {
  const int64_t value = get(key, fallback, help);
  if (value < 1) refuse(*this, key, "at least 1", OptionValue(value));
  return value;
}

bool LayerConfig::has(std::string_view key) const { return given_.find(key) != given_.end(); }

void LayerConfig::refuse_unread() const {
  for (const auto& [key, value] : given_) {
    std::vector<std::string> known;
    bool read = false;
    for (const Read& r : reads_) {
      known.push_back(r.key);
      read |= r.key == key;
    }
    if (read) continue;
    const std::string near = nearest(key, known);
    throw Error(place_ + ": unknown option '" + key + "'" +
                (near.empty() ? "" : "; the nearest is '" + near + "'"));
  }
}

}  // namespace strata
