// The lines that a run appends to: metrics.jsonl and log.txt. Each line leaves in one write, so a
// killed run loses at most the end of its last line.
#pragma once

#include <string>
#include <string_view>

namespace strata {

class Journal {
 public:
  // Opens `path` for appending. Throws Error when that is not possible.
  explicit Journal(std::string path);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  // Appends one line; the newline is added. Throws Error (resource for a full disk).
  void line(std::string_view text);

 private:
  std::string path_;
  int fd_;
};

// Keeps of a metrics file only the whole lines of steps up to `step`: what a resumed run makes
// again is dropped. A missing file is left missing.
void cut_metrics(const std::string& path, long step);

}  // namespace strata
