#include "experiments/tasks/text.h"

#include <algorithm>
#include <cmath>

#include "core/io/file.h"
#include "experiments/tasks/files.h"

namespace strata {
namespace {

constexpr size_t kMaxFile = size_t{1} << 40;  // larger files do not fit a machine's memory

struct Named {
  std::string path, bytes;
};

std::vector<Named> read_all(const std::vector<std::string>& patterns) {
  std::vector<Named> files;
  for (const std::string& path : find_files(patterns)) {
    std::string bytes = read_file(path, kMaxFile);
    if (!bytes.empty()) files.push_back({path, std::move(bytes)});
  }
  return files;
}

}  // namespace

const std::vector<TaskOption>& Text::table() {
  static const std::vector<TaskOption> kTable{
      {"files", std::vector<std::string>{}, "", "files, folders or globs such as 'src/**'"},
      {"validation_files", std::vector<std::string>{}, "",
       "validate on these instead of a share of `files`"},
      {"validation", 0.1, "", "share of the files that validates", 1e-6, 0.999},
      {"seq_len", int64_t{256}, "bytes", "length of one example", 1, 1 << 24},
      {"eval_size", int64_t{256}, "examples", "largest number of evaluation windows", 1, 1 << 24},
  };
  return kTable;
}

void Text::Part::add(const std::string& file, std::string_view document) {
  files.push_back(file);
  bytes.append(document);
  starts.push_back(bytes.size());
}

Text::Text(const TaskOptions& options) : seq_len_(options.integer("seq_len")) {
  const auto& patterns = options.list("files");
  if (patterns.empty())
    throw Error("[task] text needs files, for example files = [\"src/**\"], and none are given");
  auto files = read_all(patterns);
  if (files.empty())
    throw Error("[task] files: every file that matches '" + patterns[0] +
                (patterns.size() > 1 ? "' and the others" : "'") + " is empty");
  const auto& held_out = options.list("validation_files");
  const double share = options.number("validation");
  if (!held_out.empty()) {
    for (const Named& file : read_all(held_out)) eval_.add(file.path, file.bytes);
    std::erase_if(files, [&](const Named& file) {
      return std::find(eval_.files.begin(), eval_.files.end(), file.path) != eval_.files.end();
    });
    for (const Named& file : files) train_.add(file.path, file.bytes);
  } else if (files.size() == 1) {
    const std::string_view whole = files[0].bytes;
    const auto tail = std::max<size_t>(2, size_t(std::llround(share * double(whole.size()))));
    const size_t cut = whole.size() - std::min(tail, whole.size());
    if (cut) train_.add(files[0].path, whole.substr(0, cut));
    eval_.add(files[0].path, whole.substr(cut));
  } else {
    std::stable_sort(files.begin(), files.end(), [](const Named& a, const Named& b) {
      return stream_of(a.path) < stream_of(b.path);
    });
    const auto n =
        std::clamp<size_t>(size_t(std::llround(share * double(files.size()))), 1, files.size() - 1);
    for (size_t i = 0; i < files.size(); ++i)
      (i < n ? eval_ : train_).add(files[i].path, files[i].bytes);
  }
  const auto labelled = [](const Part& part) {
    for (size_t i = 0; i + 1 < part.starts.size(); ++i)
      if (part.starts[i + 1] - part.starts[i] > 1) return true;
    return false;
  };
  const auto refuse = [](const char* side, const Part& part) {
    throw Error("[task] files: the " + std::string(side) + " side has " +
                std::to_string(part.bytes.size()) + " bytes in " +
                std::to_string(part.files.size()) +
                " files; at least one file there must have 2 bytes or more");
  };
  if (!labelled(train_)) refuse("training", train_);
  if (!labelled(eval_)) refuse("validation", eval_);
  eval_windows_ = (bytes(Split::eval) - 1 + seq_len_ - 1) / seq_len_;
  eval_size_ = std::min(eval_windows_, options.integer("eval_size"));
}

void Text::copy(const Part& part, size_t start, bool wrap, Example out) const {
  auto next = std::upper_bound(part.starts.begin(), part.starts.end(), start);
  size_t end = *next;  // of the document that holds the current byte
  int32_t document = 0;
  size_t at = start;
  for (size_t t = 0; t < out.tokens.size(); ++t) {
    if (at == end) {  // enter the next document
      ++document;
      if (++next == part.starts.end()) {
        if (!wrap) {  // nothing is left: padding, a document of its own
          std::fill(out.tokens.begin() + long(t), out.tokens.end(), 0);
          std::fill(out.labels.begin() + long(t), out.labels.end(), kIgnore);
          std::fill(out.seq_idx.begin() + long(t), out.seq_idx.end(), document);
          return;
        }
        at = 0;
        next = part.starts.begin() + 1;
      }
      end = *next;
    }
    out.tokens[t] = uint8_t(part.bytes[at]);
    out.seq_idx[t] = document;
    ++at;
    out.labels[t] = at < end ? int32_t(uint8_t(part.bytes[at])) : kIgnore;
  }
}

void Text::fill_example(Split split, uint64_t seed, int64_t step, int64_t index,
                        Example out) const {
  if (split == Split::train) {
    Random random = example_random("text", split, seed, step, index);
    return copy(train_, random.below(train_.bytes.size()), true, out);
  }
  const int64_t window = index % eval_size_ * eval_windows_ / eval_size_;
  copy(eval_, size_t(window * seq_len_), false, out);
}

}  // namespace strata
