#include "core/model/stack_options.h"

#include <doctest/doctest.h>

#include "core/model/model.h"
#include "test_layers.h"

using namespace strata;

namespace {

Config config_of(const std::string& pattern) {
  Config config;
  config.model.pattern = pattern;
  config.model.d_model = 8;
  config.model.vocab_size = 16;
  return config;
}

std::string assembled(const Config& config) {
  testing::TestFactory factory;
  const Model model(config, factory);
  return canonical_pattern(model.expansion());
}

std::string refusal(const Config& config) {
  try {
    assembled(config);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("stack options: an option on a group goes to the members that know it") {
  CHECK(assembled(config_of("(r-){d_ff=4}^2")) == "r-{d_ff=4}r-{d_ff=4}");
  CHECK(assembled(config_of("r-{d_ff=4}")) == "r-{d_ff=4}");
}

TEST_CASE("stack options: what nobody reads is refused with a caret") {
  CHECK(refusal(config_of("r(-r){d_f=4}")) ==
        "pattern, character 7: 'd_f' is not an option of any layer in this group; did you mean "
        "'d_ff'?\n  r(-r){d_f=4}\n        ^");
  CHECK(
      refusal(config_of("-r{d_ff=4}")).find("'d_ff' is not an option of 'r'; it has no options") !=
      std::string::npos);
}

TEST_CASE("stack options: the pattern beats [layers.X], which beats [layers.name]") {
  testing::TestFactory factory;
  Config config = config_of("-");
  config.layers["mlp"] = {{"d_ff", int64_t{3}}, {"a", int64_t{1}}};
  config.layers["-"] = {{"d_ff", int64_t{5}}};
  const Options options = symbol_options("-", config, factory);
  CHECK(options.at("d_ff") == OptionValue(int64_t{5}));
  CHECK(options.at("a") == OptionValue(int64_t{1}));
}

TEST_CASE("stack options: a layer's own refusal names the block") {
  CHECK(refusal(config_of("r-{d_ff=0}")).find("block 1 '-'") != std::string::npos);
}
