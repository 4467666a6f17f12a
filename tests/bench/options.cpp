#include "tests/bench/options.h"

#include <algorithm>
#include <charconv>

#include "core/contract/options.h"
#include "core/tensor/device.h"

namespace strata::bench {

std::string usage(const std::vector<std::string>& groups) {
  std::string text = "usage: strata_bench [GROUP...]   groups:";
  for (const std::string& name : groups) text += " " + name;
  return text + R"(
       strata_bench --device cuda [OPTION...]
  --only REGEX       the rows whose name it matches: --only '^ssd|/8x8192'
  --list             only the names of the rows
  --json FILE        writes what was measured, after each row
  --peers FILE       times to compare with, by row: {"card", "rows": [{"name", "ms", "peer"}]}, or
                     what --json wrote before; may be given again
  --dtype NAME       bf16 (default), f16 or f32
  --recompute LIST   train.recompute of the training rows: block, or symbols as in M,-
  --chunk N          tokens of one call of a prefill (default 8192)
  --portable         the kernels that every card has, where this card has better ones
)";
}

static DType dtype_named(const std::string& name) {
  for (DType type : {DType::bf16, DType::f16, DType::f32})
    if (name == name_of(type)) return type;
  throw Error("--dtype must be bf16, f16 or f32, got '" + name + "'");
}

static std::vector<std::string> words_of(const std::string& list) {
  std::vector<std::string> words;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    if (end > begin) words.push_back(list.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

static int64_t size_given(const std::string& option, const std::string& value) {
  int64_t n = 0;
  const char* end = value.data() + value.size();
  const auto [rest, failed] = std::from_chars(value.data(), end, n);
  if (failed != std::errc{} || rest != end || n < 1)
    throw Error(option + " must be a whole number of at least 1, got '" + value + "'");
  return n;
}

BenchOptions parse_options(const std::vector<std::string>& arguments,
                           const std::vector<std::string>& groups) {
  const std::vector<std::string> known{"--device",   "--only",  "--list",      "--json",
                                       "--peers",    "--dtype", "--recompute", "--chunk",
                                       "--portable", "--help"};
  BenchOptions options;
  DeviceOptions device;
  bool has_device = false;
  std::string for_device;  // an option that means nothing without --device
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& word = arguments[i];
    if (word == "--help") {
      options.help = true;
    } else if (!word.starts_with("--")) {
      if (std::find(groups.begin(), groups.end(), word) == groups.end())
        throw Error("there is no group '" + word + "'\n" + usage(groups));
      options.groups.push_back(word);
    } else if (std::find(known.begin(), known.end(), word) == known.end()) {
      const std::string near = nearest(word, known);
      throw Error("there is no option " + word + (near.empty() ? "" : "; the nearest is " + near));
    } else if (word == "--list" || word == "--portable") {
      (word == "--list" ? device.list : device.portable) = true;
      for_device = word;
    } else {
      if (i + 1 == arguments.size()) throw Error(word + " needs a value");
      const std::string& value = arguments[++i];
      if (word == "--device") {
        device.device = parse_device(value);
        has_device = true;
        continue;
      }
      for_device = word;
      if (word == "--only") device.only = value;
      if (word == "--json") device.json = value;
      if (word == "--peers") device.peers.push_back(value);
      if (word == "--dtype") device.dtype = dtype_named(value);
      if (word == "--recompute") device.recompute = words_of(value);
      if (word == "--chunk") device.prefill_chunk = size_given(word, value);
    }
  }
  if (!has_device && !for_device.empty()) throw Error(for_device + " needs --device cuda");
  if (has_device && !options.groups.empty())
    throw Error("groups are of the CPU's rows; with --device use --only");
  if (has_device) options.device = device;
  return options;
}

}  // namespace strata::bench
