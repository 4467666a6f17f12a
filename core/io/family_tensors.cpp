// Foreign tensors in and out of the parameters of a model.
#include <algorithm>
#include <deque>
#include <set>
#include <unordered_map>

#include "core/io/families.h"
#include "core/tensor/convert.h"
#include "core/tensor/device.h"

namespace strata {

namespace {

// The dims without those of 1: conv weights are (channels, 1, kernel) in some files and
// (channels, kernel) here, with the same bytes.
std::vector<int64_t> squeezed(const std::vector<int64_t>& dims) {
  std::vector<int64_t> out;
  for (const int64_t dim : dims) {
    if (dim != 1) out.push_back(dim);
  }
  return out;
}

std::vector<int64_t> dims_of(const Shape& shape) { return {shape.dim, shape.dim + shape.rank}; }

Shape without_first(const Shape& shape) {
  Shape rest;
  for (int i = 1; i < shape.rank; ++i) rest.dim[rest.rank++] = shape.dim[i];
  return rest;
}

void check_shape(const ForeignView& view, const StoredTensor& tensor, const std::string& file) {
  const std::string where = file + ": tensor " + tensor.name;
  const TensorRule& rule = *view.rule;
  if (rule.rows >= 0 && (tensor.shape.empty() || tensor.shape[0] != rule.rows)) {
    throw Error(where + ": expected " + rule.rows_text + " = " + std::to_string(rule.rows) +
                " rows, got shape " + shape_text(tensor.shape));
  }
  const std::vector<int64_t> ours = dims_of(view.shape);
  if (squeezed(tensor.shape) != squeezed(ours)) {
    throw Error(where + ": expected shape " + shape_text(ours) + " (" + view.param->name +
                "), got " + shape_text(tensor.shape));
  }
}

bool matches(const std::string& name, const std::string& pattern) {
  if (!pattern.ends_with('*')) return name == pattern;
  return name.starts_with(std::string_view(pattern).substr(0, pattern.size() - 1));
}

bool is_ignored(const ForeignModel& model, const ParamStore& params, const std::string& name) {
  for (const std::string& pattern : model.ignored) {
    if (matches(name, pattern)) return true;
  }
  // With tied embeddings some files repeat the embedding as the head.
  if (!model.config.model.tie_embeddings || params.find("lm_head.weight")) return false;
  for (const TensorRule& rule : model.tensors) {
    if (rule.ours == "lm_head.weight" && rule.theirs[0] == name) return true;
  }
  return false;
}

// The part of its parameter that a view stands for.
Tensor part_of(const ForeignView& view) {
  const Tensor& value = view.param->slot->value;
  void* begin = static_cast<std::byte*>(value.data) + size_t(view.begin) * size_of(value.dtype);
  return view_of(begin, view.shape, value.dtype, value.device);
}

}  // namespace

std::vector<ForeignView> foreign_views(const ForeignModel& model, const ParamStore& params) {
  std::unordered_map<std::string, const TensorRule*> rules;
  for (const TensorRule& rule : model.tensors) rules[rule.ours] = &rule;
  std::vector<ForeignView> views;
  for (const NamedParam& param : params.all()) {
    const auto found = rules.find(param.name);
    if (found == rules.end()) {
      throw Error(model.family_file + ": it has no name for the parameter " + param.name);
    }
    const TensorRule& rule = *found->second;
    const Shape& shape = param.slot->shape;
    if (!rule.stacked) {
      views.push_back({rule.theirs[0], &param, &rule, shape, 0});
      continue;
    }
    if (shape.rank == 0 || shape[0] != int64_t(rule.theirs.size())) {
      throw Error(model.family_file + ": " + param.name + " is stacked from " +
                  std::to_string(rule.theirs.size()) + " tensors, but its shape is " +
                  to_string(shape));
    }
    const Shape part = without_first(shape);
    for (size_t i = 0; i < rule.theirs.size(); ++i) {
      views.push_back({rule.theirs[i], &param, &rule, part, int64_t(i) * part.numel()});
    }
  }
  return views;
}

void load_tensors(const ForeignModel& model, const TensorFiles& files, ParamStore& params) {
  std::set<std::string> used;
  for (const ForeignView& view : foreign_views(model, params)) {
    const StoredTensor* tensor = files.find(view.name);
    if (!tensor) {
      throw Error(files.files()[0].path() + ": there is no tensor " + view.name + " (" +
                  view.param->name + ", shape " + to_string(view.shape) + ")");
    }
    check_shape(view, *tensor, files.file_of(view.name));
    try {
      const Tensor part = part_of(view);
      if (part.device.kind == DeviceKind::cpu) {
        convert_numbers(tensor->data, tensor->dtype, part.data, part.dtype, size_t(part.numel()));
      } else {
        std::vector<std::byte> numbers(part.bytes());
        convert_numbers(tensor->data, tensor->dtype, numbers.data(), part.dtype,
                        size_t(part.numel()));
        assign_from_host(part, numbers.data());
      }
    } catch (const Error& error) {
      throw Error(files.file_of(view.name) + ": tensor " + view.name + ": " + error.what());
    }
    used.insert(view.name);
  }
  for (const StoredTensor* tensor : files.tensors()) {
    if (used.count(tensor->name) || is_ignored(model, params, tensor->name)) continue;
    throw Error(files.file_of(tensor->name) + ": tensor " + tensor->name +
                ": the model of this config has no such parameter");
  }
}

ForeignTensors foreign_tensors(const ForeignModel& model, const ParamStore& params,
                               const TensorFiles* like) {
  ForeignTensors out;
  auto& [tensors, converted, copies] = out;
  std::unordered_map<std::string, size_t> order;
  if (like) {
    for (const StoredTensor* tensor : like->tensors()) order.emplace(tensor->name, order.size());
  }
  for (const ForeignView& view : foreign_views(model, params)) {
    StoredTensor tensor;
    tensor.name = view.name;
    tensor.dtype = view.param->slot->value.dtype;
    tensor.shape = dims_of(view.shape);
    tensor.data = copies.emplace_back(part_of(view))->data;
    const auto count = size_t(view.shape.numel());
    const StoredTensor* old = like ? like->find(view.name) : nullptr;
    if (old) {
      check_shape(view, *old, like->file_of(view.name));
      tensor.shape = old->shape;
    }
    if (old && old->dtype != tensor.dtype) {
      std::vector<std::byte>& bytes = converted.emplace_back(count * size_of(old->dtype));
      convert_numbers(tensor.data, tensor.dtype, bytes.data(), old->dtype, count);
      tensor.dtype = old->dtype;
      tensor.data = bytes.data();
    }
    tensor.bytes = count * size_of(tensor.dtype);
    tensors.push_back(std::move(tensor));
  }
  const auto rank = [&](const StoredTensor& tensor) {
    const auto found = order.find(tensor.name);
    return found == order.end() ? order.size() : found->second;
  };
  std::stable_sort(tensors.begin(), tensors.end(),
                   [&](const StoredTensor& a, const StoredTensor& b) { return rank(a) < rank(b); });
  return out;
}

void save_tensors(const ForeignModel& model, const ParamStore& params, const std::string& path,
                  const TensorFiles* like) {
  write_safetensors(path, foreign_tensors(model, params, like).tensors, {{"format", "pt"}});
}

}  // namespace strata
