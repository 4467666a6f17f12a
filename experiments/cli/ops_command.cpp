// strata ops [NAME]: the operations that a layer is made of.
#include <CLI/CLI.hpp>
#include <iomanip>
#include <iostream>
#include <memory>

#include "core/io/json.h"
#include "core/ops/help.h"
#include "experiments/cli/command.h"

namespace strata {

static void print_ops(const std::vector<OpHelp>& ops, bool json) {
  if (json) {
    Json rows = Json::array();
    for (const OpHelp& op : ops) {
      Json row = Json::object();
      row.set("name", op.name).set("summary", op.summary).set("page", op.page);
      rows.push(std::move(row));
    }
    std::cout << rows.dump(2) << "\n";
  } else if (ops.size() == 1) {
    std::cout << ops[0].name << ": " << ops[0].page << "\n";
  } else {
    for (const OpHelp& op : ops)
      std::cout << std::left << std::setw(18) << op.name << op.summary << "\n";
    std::cout << "\n`strata ops NAME` shows one of them.\n";
  }
}

void add_ops_command(CLI::App& app, Session& session) {
  auto* command = app.add_subcommand("ops", "list the operations that layers are made of");
  auto name = std::make_shared<std::string>();
  command->add_option("NAME", *name, "show the page of one operation");
  command->footer("\nExamples:\n  strata ops\n  strata ops causal_conv1d");
  command->callback([&session, name] {
    session.action = [&session, name] {
      print_ops(name->empty() ? op_pages() : std::vector{op_page(*name)}, session.json);
      return kDone;
    };
  });
}

}  // namespace strata
