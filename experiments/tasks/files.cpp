#include "experiments/tasks/files.h"

#include <algorithm>
#include <filesystem>
#include <string_view>

#include "core/contract/error.h"

namespace strata {
namespace {

namespace fs = std::filesystem;

bool is_glob(const std::string& text) { return text.find_first_of("*?[") != std::string::npos; }

// The place behind the set that opens at pattern[at] == '[', or npos where it does not close.
size_t set_end(std::string_view pattern, size_t at) {
  size_t close = at + 1;
  if (close < pattern.size() && pattern[close] == '!') ++close;
  close = pattern.find(']', close + 1);
  return close == std::string_view::npos ? close : close + 1;
}

bool in_set(std::string_view set, char c) {  // set: what stands between the brackets
  const bool negated = !set.empty() && set[0] == '!';
  if (negated) set.remove_prefix(1);
  bool found = false;
  for (size_t i = 0; i < set.size(); ++i) {
    if (i + 2 < set.size() && set[i + 1] == '-') {
      found |= set[i] <= c && c <= set[i + 2];
      i += 2;
    } else {
      found |= set[i] == c;
    }
  }
  return found != negated;
}

// Visits every entry of a folder that can be listed; unreadable folders are passed over.
template <typename Visit>
void each_entry(const fs::path& folder, Visit visit) {
  std::error_code error;
  for (fs::directory_iterator it(folder.empty() ? "." : folder, error), end; !error && it != end;
       it.increment(error))
    visit(*it);
}

bool is_folder(const fs::directory_entry& entry) {
  std::error_code error;
  return !entry.is_symlink(error) && entry.is_directory(error);
}

bool hidden(const std::string& name) { return name.starts_with('.'); }

void all_under(const fs::path& folder, std::vector<std::string>& found) {
  each_entry(folder, [&](const fs::directory_entry& entry) {
    const std::string name = entry.path().filename().string();
    std::error_code error;
    if (hidden(name)) return;
    if (is_folder(entry))
      all_under(folder / name, found);
    else if (entry.is_regular_file(error))
      found.push_back((folder / name).string());
  });
}

// Walks the components [at, end) of a pattern below `folder`.
void expand(const fs::path& folder, const std::vector<std::string>& parts, size_t at,
            std::vector<std::string>& found) {
  const std::string& part = parts[at];
  const bool last = at + 1 == parts.size();
  std::error_code error;
  if (part == "**") {
    if (last) return all_under(folder, found);
    expand(folder, parts, at + 1, found);
    each_entry(folder, [&](const fs::directory_entry& entry) {
      const std::string name = entry.path().filename().string();
      if (!hidden(name) && is_folder(entry)) expand(folder / name, parts, at, found);
    });
  } else if (!is_glob(part)) {
    const fs::path next = folder / part;
    if (last && fs::is_regular_file(next, error)) found.push_back(next.string());
    if (!last && fs::is_directory(next, error)) expand(next, parts, at + 1, found);
  } else {
    each_entry(folder, [&](const fs::directory_entry& entry) {
      const std::string name = entry.path().filename().string();
      if (!matches_component(part, name)) return;
      if (last && entry.is_regular_file(error)) found.push_back((folder / name).string());
      if (!last && entry.is_directory(error)) expand(folder / name, parts, at + 1, found);
    });
  }
}

std::vector<std::string> split_path(const std::string& pattern) {
  std::vector<std::string> parts;
  for (const fs::path& part : fs::path(pattern).relative_path())
    if (!part.empty() && part != ".") parts.push_back(part.string());
  return parts;
}

}  // namespace

bool matches_component(const std::string& pattern, const std::string& name) {
  if (hidden(name) && !hidden(pattern)) return false;
  // Greedy with one point of return: the last star and the place in the name that it has eaten to.
  size_t p = 0, n = 0, star = std::string::npos, eaten = 0;
  while (n < name.size()) {
    size_t next = p + 1;
    bool fits = false;
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      eaten = n;
      continue;
    }
    if (p < pattern.size()) {
      const size_t end = pattern[p] == '[' ? set_end(pattern, p) : std::string::npos;
      if (end != std::string::npos) {
        fits = in_set(std::string_view(pattern).substr(p + 1, end - p - 2), name[n]);
        next = end;
      } else {
        fits = pattern[p] == '?' || pattern[p] == name[n];
      }
    }
    if (fits) {
      p = next;
      ++n;
    } else if (star != std::string::npos) {
      p = star + 1;
      n = ++eaten;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

std::vector<std::string> find_files(const std::vector<std::string>& patterns) {
  std::vector<std::string> found;
  for (const std::string& pattern : patterns) {
    const size_t before = found.size();
    std::error_code error;
    const fs::file_status status = fs::status(pattern, error);
    if (fs::is_directory(status)) {
      all_under(pattern, found);
    } else if (fs::is_regular_file(status)) {
      found.push_back(pattern);
    } else if (fs::exists(status)) {
      throw Error("[task] files: '" + pattern + "' is neither a regular file nor a folder");
    } else if (!is_glob(pattern)) {
      throw Error("[task] files: '" + pattern + "' does not exist; give a file, a folder or a " +
                  "glob such as 'src/**'");
    } else if (const auto parts = split_path(pattern); !parts.empty()) {
      expand(fs::path(pattern).root_path(), parts, 0, found);
    }
    if (found.size() == before)
      throw Error("[task] files: no file matches '" + pattern + "' (looked from " +
                  fs::current_path(error).string() + ")");
  }
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

}  // namespace strata
