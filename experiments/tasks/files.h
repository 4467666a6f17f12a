// Files of this machine as data: globs.
#pragma once

#include <string>
#include <vector>

namespace strata {

// The regular files that `patterns` name, sorted and without repetition. A pattern is a file, a
// folder (every file under it) or a glob: `*` and `?` stay within one path component, `[a-z]` and
// `[!a-z]` are sets, `**` is any number of folders. Wildcards do not match a leading dot, and links
// to folders are not followed. Throws Error for a pattern that matches nothing, and for a file that
// does not exist or is not a regular file.
std::vector<std::string> find_files(const std::vector<std::string>& patterns);

// True when one path component (no '/') matches a component of a pattern.
bool matches_component(const std::string& pattern, const std::string& name);

}  // namespace strata
