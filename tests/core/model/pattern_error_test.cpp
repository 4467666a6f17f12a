// Every way in which a pattern can be wrong: the sentence, and the place of the caret.
#include <doctest/doctest.h>

#include "core/model/pattern.h"

using namespace strata;

namespace {

struct Message {
  std::string sentence, line;
  size_t caret = 0;
};

// The parts of the message; fails when the text expands.
Message message_of(const std::string& text) {
  try {
    expand_pattern(text);
  } catch (const Error& e) {
    CHECK(e.kind() == ErrorKind::input);
    const std::string what = e.what();
    const size_t first = what.find("\n  "), second = what.find("\n  ", first + 1);
    if (first == std::string::npos || second == std::string::npos) return {what, "", 0};
    return {what.substr(0, first), what.substr(first + 3, second - first - 3),
            what.size() - second - 4};
  }
  FAIL("no error for " << text);
  return {};
}

void check(const std::string& text, size_t place, const std::string& part) {
  CAPTURE(text);
  const Message m = message_of(text);
  CAPTURE(m.sentence);
  CHECK(m.line == text);
  CHECK(m.caret == place);
  CHECK(m.sentence.find(part) != std::string::npos);
  CHECK(m.sentence.find("character " + std::to_string(place + 1) + ":") != std::string::npos);
}

std::string repeated(const std::string& s, int n) {
  std::string out;
  for (int i = 0; i < n; ++i) out += s;
  return out;
}

}  // namespace

TEST_CASE("pattern errors: the whole message") {
  try {
    expand_pattern("M-M*(-M");
    FAIL("no error");
  } catch (const Error& e) {
    CHECK(std::string(e.what()) ==
          "pattern, character 5: this '(' is never closed\n  M-M*(-M\n      ^");
  }
}

TEST_CASE("pattern errors: brackets") {
  check("M-M*(-M", 4, "never closed");
  check("M-)M", 2, "closes nothing");
  check("M]", 1, "closes nothing");
  check("(M]", 2, "')' is expected here, for the '(' at character 1");
  check("[M&*)", 4, "']' is expected");
  check("[M&*", 0, "never closed");
  check("()", 1, "at least one block");
  check("[M&]", 3, "at least one block");
  check("[&M]", 1, "at least one block");
  check("[M]", 0, "at least two");
  check("[M:sum]", 0, "at least two");
  check("[M&*:max]", 5, "sum, mean, concat, gate, diff");
  check("[M&*:]", 5, "must be a name");
  check("<mamba2", 0, "never closed");
  check("<>", 1, "must be a name");
  check("M&*", 1, "parallel branches");
  check("M:sum", 1, "parallel branches");
  check("(M|M)", 2, "outside of all brackets");
  check("(M/M)", 2, "outside of all brackets");
}

TEST_CASE("pattern errors: symbols and emptiness") {
  check("M.", 1, "'.' is not a layer symbol");
  check("M4", 1, "repetition is written with '^'");
  check("M\xc3\xa9", 1, "'\xc3\xa9' is not a layer symbol");
  check("", 0, "no blocks");
  check("   ", 0, "no blocks");
  check("|", 0, "no blocks");
  check("/M", 0, "no blocks");
  check("M/*//*", 3, "no block follows");
  check("M/*|E", 3, "multi-token-prediction");
  CHECK(message_of("M\x01").sentence.find("this byte") != std::string::npos);
  CHECK(message_of("M\xff").sentence.find("this byte") != std::string::npos);
  CHECK(message_of(std::string("M\0-", 3)).sentence.find("this byte") != std::string::npos);
  // The column counts characters, not bytes.
  CHECK(message_of("M{a='\xc3\xa9\xc3\xa9'}.").caret == 9);
}

TEST_CASE("pattern errors: repetition") {
  check("M^0", 2, "at least 1");
  check("M^-1", 2, "whole number");
  check("M^+1", 2, "whole number");
  check("M^", 2, "whole number");
  check("M^x", 2, "whole number");
  check("^3", 0, "must follow a block");
  check("M^2^3", 3, "once only");
  check("M^1.5", 3, "is not a layer symbol");
  check("M^4097", 1, "more than 4096 blocks");
  check("M^99999999999999999999999", 1, "more than 4096");
  check("((((M^1000)^1000)^1000)^1000)", 11, "more than 4096");
  check("(M-)^2048M", 9, "more than 4096");
  check("M^2048(-[M&*])^2048", 14, "more than 4096");
  CHECK(expand_pattern("(M-)^2048").blocks.size() == 4096);
  check("M^2{a=1}", 3, "options must follow a block or a bracket, before");
  check("M^2@A", 3, "before its repetition");
}

TEST_CASE("pattern errors: options") {
  check("M{}", 1, "no option");
  check("M{a}", 3, "'=' and a value");
  check("M{a=}", 4, "a value is missing");
  check("M{a=,b=1}", 4, "a value is missing");
  check("M{=1}", 2, "must be a name");
  check("M{1a=1}", 2, "must be a name");
  check("M{a=1", 1, "never closed");
  check("M{a=1 b=2}", 6, "',' or '}'");
  check("M{a=1,a=2}", 6, "given twice");
  check("M{a=1}{a=2}", 7, "given twice");
  check("M{a=1b}", 4, "neither a number nor a word");
  check("M{a=.5}", 4, "neither a number nor a word");
  check("M{a=012}", 4, "neither a number nor a word");
  check("M{a=1__0}", 4, "neither a number nor a word");
  check("M{a=-x}", 4, "neither a number nor a word");
  check("M{a=nan}", 4, "nan");
  check("M{a=9223372036854775808}", 4, "64 bits");
  check("M{a=1e999}", 4, "64 bits");
  check("M{a=\"x}", 4, "quote is never closed");
  check("M{a=\"\\q\"}", 5, "escape");
  check("M{a=\"\\ud800\"}", 5, "Unicode");
  check("M{a=\"\\u12\"}", 5, "Unicode");
  check("M@A{a=1}", 3, "before its share");
  check("{a=1}", 0, "must follow");
  check("M{a=[1]}", 4, "a value is missing");
  check("M}", 1, "closes nothing");
  CHECK(message_of("M{a='" + repeated("x", 300) + "'}").sentence.find("longer than") !=
        std::string::npos);
  CHECK(message_of("M{" + repeated("x", 65) + "=1}").sentence.find("longer than") !=
        std::string::npos);
  std::string many = "M{a=1";
  for (int i = 0; i < 64; ++i) many += ",k" + std::to_string(i) + "=1";
  CHECK(message_of(many + "}").sentence.find("more than 64 options") != std::string::npos);
  // 64 options on a group of 4096 blocks must not grow without bound.
  many = "(M^4096){a=1";
  for (int i = 0; i < 63; ++i) many += ",k" + std::to_string(i) + "=1";
  CHECK(message_of(many + "}").sentence.find("more than 65536 options") != std::string::npos);
}

TEST_CASE("pattern errors: wiring") {
  check("M{residual=no}", 11, "takes add or none, got no");
  check("M{out=2}", 6, "none or linear");
  check("M{to=last}M", 5, "h or next or chain");
  check("M{lora=-1}", 7, "a rank");
  check("M{lora=1.5}", 7, "a rank");
  check("M{in_scale=inf}", 11, "finite number");
  check("M{in_scale=x}", 11, "finite number");
  check("M{norm=1}", 7, "name of a norm");
  check("M{in=1}", 5, "h+embed");
  check("M{in=h+}", 5, "h+embed");
  check("M{in=\"\"}", 5, "h+embed");
  check("M{lora?=8}", 2, "write '='");
  check("M{to=next}", 2, "does not exist");
  check("(*-){residual=none,to=next}", 19, "does not exist");
  check("M/*{to=next}", 4, "does not exist");
  check("[M{to=next}&*]M", 3, "as a whole");
  check("[M&(*-){residual=none}]", 8, "as a whole");
  check("((*-){residual=none}M){residual=none}", 6, "already settled");
  check("(*-{to=next}){residual=none,to=next}M", 4, "already settled");
}

TEST_CASE("pattern errors: shares") {
  check("@A", 0, "must follow");
  check("M@", 2, "a letter or a list");
  check("M@1", 2, "a letter or a list");
  check("M@{}", 3, "must be a name");
  check("M@{A,}", 5, "must be a name");
  check("M@{A", 2, "never closed");
  check("M@{A B}", 5, "',' or '}'");
  check("M@A@B", 3, "one share only");
  check("(M@A-)@B", 2, "within a shared item");
  check("M@A-@A", 4, "'A' is - here and M before");
  check("M@A M{d=1}@A", 10, "the same name means the same weights");
  check("(M-)@{A,B}^2M@B", 13, "is M here and M- before");
  CHECK_NOTHROW(expand_pattern("M{lora=4}@A M@A"));  // wiring is per call
}

TEST_CASE("pattern errors: too deep, too long") {
  CHECK_NOTHROW(expand_pattern(repeated("(", 64) + "M" + repeated(")", 64)));
  check(repeated("(", 30) + "M^0" + repeated(")", 30), 32, "at least 1");
  CHECK(message_of(repeated("(", 65) + "M" + repeated(")", 65)).sentence.find("deeper than 64") !=
        std::string::npos);
  CHECK(message_of(repeated("[M&", 60000 / 3)).sentence.find("deeper than 64") !=
        std::string::npos);
  CHECK(message_of(repeated(" ", 70000)).sentence.find("65536 bytes") != std::string::npos);
  CHECK(message_of(repeated("M", 65536)).sentence.find("more than 4096") != std::string::npos);
}

TEST_CASE("pattern errors: a long pattern is shown around the place") {
  const Message m = message_of(repeated("M-", 100) + "." + repeated("M-", 100));
  CHECK(m.line == "..." + repeated("M-", 20) + "." + "M" + repeated("-M", 19) + "...");
  CHECK(m.caret == 43);
  CHECK(m.sentence.find("character 201") != std::string::npos);
  // Line breaks would tear the caret from its place.
  CHECK(message_of("M\n-\n.").line == "M - .");
}
