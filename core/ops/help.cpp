#include "core/ops/help.h"

#include <map>

#include "core/contract/options.h"

namespace strata {

static std::map<std::string, std::string, std::less<>>& pages() {
  static std::map<std::string, std::string, std::less<>> map;
  return map;
}

bool add_op_page(const char* name, const char* page) { return pages().emplace(name, page).second; }

static OpHelp help_of(const std::string& name, const std::string& page) {
  return {name, page.substr(0, page.find('\n')), page};
}

std::vector<OpHelp> op_pages() {
  std::vector<OpHelp> all;
  for (const auto& [name, page] : pages()) all.push_back(help_of(name, page));
  return all;
}

OpHelp op_page(std::string_view name) {
  const auto found = pages().find(name);
  if (found != pages().end()) return help_of(found->first, found->second);
  std::vector<std::string> known;
  for (const auto& [n, page] : pages()) known.push_back(n);
  const std::string near = nearest(std::string(name), known);
  throw Error("there is no operation '" + std::string(name) + "'" +
              (near.empty() ? "" : "; did you mean '" + near + "'?") +
              " `strata ops` lists all of them");
}

}  // namespace strata
