// The pages of `strata ops`: every operation that is open to authors brings its own.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/contract/error.h"

namespace strata {

struct OpHelp {
  std::string name;
  std::string summary;  // the page's first line
  std::string page;     // signature, shapes, state, gradient, an example
};

// All pages, by name.
STRATA_API std::vector<OpHelp> op_pages();
// Throws Error naming the nearest operation when there is no such page.
STRATA_API OpHelp op_page(std::string_view name);

// Adds a page whose first line is its summary. Use the macro.
STRATA_API bool add_op_page(const char* name, const char* page);

}  // namespace strata

#define STRATA_OP_HELP_(line, name, page) \
  static const bool help_##line = strata::add_op_page(name, page);
#define STRATA_OP_HELP__(line, name, page) STRATA_OP_HELP_(line, name, page)
// In the operation's own .cpp, at namespace scope: STRATA_OP_HELP("linear", R"(y = x W^T + b ...)")
#define STRATA_OP_HELP(name, page) STRATA_OP_HELP__(__LINE__, name, page)
