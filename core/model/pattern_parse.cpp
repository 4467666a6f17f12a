// Recursive descent over the grammar at the head of pattern.h; depth and size are checked here,
// before anything is expanded.
#include <charconv>

#include "core/model/pattern_ast.h"

namespace strata::pattern {
namespace {

constexpr size_t kMaxNameBytes = 64;
constexpr size_t kMaxShares = 64;

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Tree tree() {
    Tree tree;
    do {
      tree.stages.push_back(seq());
    } while (take('|'));
    size_t empty = 0, first_empty = 0;
    while (peek() == '/') {
      const size_t slash = pos_++;
      tree.depths.push_back(seq());
      if (tree.depths.back().empty() && empty++ == 0) first_empty = slash;
      if (peek() == '|') fail("'|' cannot stand within a multi-token-prediction depth");
    }
    if (pos_ < text_.size()) unexpected();
    // Megatron takes "M-/" for a stack without depths.
    if (empty == tree.depths.size())
      tree.depths.clear();
    else if (empty > 0)
      throw_at(text_, first_empty, "no block follows this '/'");
    return tree;
  }

 private:
  [[noreturn]] void fail(const std::string& sentence) const { throw_at(text_, pos_, sentence); }

  // The next character that is not white space, '\0' at the end.
  char peek() {
    while (pos_ < text_.size() && is_space(text_[pos_])) ++pos_;
    return pos_ < text_.size() ? text_[pos_] : '\0';
  }

  bool take(char c) {
    if (pos_ >= text_.size() || peek() != c || pos_ >= text_.size()) return false;
    ++pos_;
    return true;
  }

  [[noreturn]] void unexpected() const {
    const char c = text_[pos_];
    const std::string shown(text_.substr(pos_, std::max<size_t>(1, utf8_length(text_, pos_))));
    switch (c) {
      case ')':
      case ']':
      case '}':
      case '>':
        fail(std::string("this '") + c + "' closes nothing");
      case '^':
        fail("a repetition must follow a block or a bracket");
      case '@':
        fail("a share must follow a block or a bracket, before its repetition");
      case '{':
        fail("options must follow a block or a bracket, before its share and repetition");
      case '&':
      case ':':
        fail(std::string("'") + c + "' belongs into parallel branches, as in [M&*:sum]");
      case '|':
        fail("a pipeline cut must stand outside of all brackets");
      case '/':
        fail("a multi-token-prediction depth must start outside of all brackets");
      default:
        break;
    }
    if (is_digit(c))
      fail("a number is not a layer symbol; repetition is written with '^', as in M^4");
    const unsigned char byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F || utf8_length(text_, pos_) == 0)
      fail("this byte is not a layer symbol");
    fail("'" + shown +
         "' is not a layer symbol; symbols are letters and * + - # % ! ? ~ $, names stand in <>");
  }

  Seq seq() {
    Seq items;
    while (true) {
      const char c = peek();
      if (pos_ < text_.size() && (is_pattern_symbol(c) || c == '<' || c == '(' || c == '[')) {
        items.push_back(item());
      } else if (pos_ >= text_.size() ||
                 std::string_view("|/)]&:").find(c) != std::string_view::npos) {
        return items;
      } else {
        unexpected();
      }
    }
  }

  Item item() {
    Item item;
    item.position = pos_;
    const size_t before = layers_;
    const char c = text_[pos_];
    if (c == '(' || c == '[') {
      bracket(item);
    } else {
      item.symbol = c == '<' ? angle_name() : std::string(1, text_[pos_++]);
      add_layers(1, item.position);
    }
    while (peek() == '{') options(item);
    if (peek() == '@') share(item);
    if (peek() == '^') repetition(item, layers_ - before);
    return item;
  }

  // `count` more layers, because of the place `where`.
  void add_layers(size_t count, size_t where) {
    if (count > kMaxPatternBlocks - layers_) {
      throw_at(
          text_, where,
          "with this the pattern has more than " + std::to_string(kMaxPatternBlocks) + " blocks");
    }
    layers_ += count;
  }

  void bracket(Item& item) {
    const char open = text_[pos_], close = open == '(' ? ')' : ']';
    if (++depth_ > kMaxPatternDepth) {
      fail("brackets are nested deeper than " + std::to_string(kMaxPatternDepth) + " here");
    }
    ++pos_;
    item.kind = open == '(' ? Item::Kind::group : Item::Kind::parallel;
    item.children.push_back(branch(open));
    if (open == '[') {
      while (take('&')) item.children.push_back(branch(open));
      if (item.children.size() < 2 && (peek() == ']' || peek() == ':')) {
        throw_at(text_, item.position, "parallel branches need at least two, as in [M&*:sum]");
      }
      item.fuse = take(':') ? fuse() : "sum";
    }
    if (!take(close)) {
      if (pos_ < text_.size() && text_[pos_] != ')' && text_[pos_] != ']') unexpected();
      if (pos_ < text_.size()) {
        fail(std::string("'") + close + "' is expected here, for the '" + open + "' at character " +
             std::to_string(item.position + 1));
      }
      throw_at(text_, item.position, std::string("this '") + open + "' is never closed");
    }
    --depth_;
  }

  Seq branch(char open) {
    Seq items = seq();
    if (items.empty() && pos_ < text_.size()) {
      fail(open == '(' ? "a group must hold at least one block"
                       : "a branch must hold at least one block");
    }
    return items;
  }

  std::string fuse() {
    peek();
    const size_t start = pos_;
    const std::string name = identifier("the way to fuse branches");
    for (const char* known : {"sum", "mean", "concat", "gate", "diff"}) {
      if (name == known) return name;
    }
    throw_at(
        text_, start,
        "'" + name + "' is not a way to fuse branches; they are sum, mean, concat, gate, diff");
  }

  // A letter or '_', then letters, digits, '_' and '-'.
  std::string identifier(const std::string& what) {
    peek();
    const size_t start = pos_;
    if (pos_ < text_.size() && is_name_start(text_[pos_])) {
      while (pos_ < text_.size() &&
             (is_name_start(text_[pos_]) || is_digit(text_[pos_]) || text_[pos_] == '-'))
        ++pos_;
    }
    if (pos_ == start) fail(what + " must be a name: a letter, then letters, digits, '_' or '-'");
    if (pos_ - start > kMaxNameBytes)
      throw_at(text_, start,
               "this name is longer than " + std::to_string(kMaxNameBytes) + " bytes");
    return std::string(text_.substr(start, pos_ - start));
  }

  std::string angle_name() {
    const size_t start = pos_++;
    std::string name = identifier("what stands in <>");
    if (!take('>')) throw_at(text_, start, "this '<' is never closed");
    return name;
  }

  void options(Item& item) {
    const size_t open = pos_++;
    if (peek() == '}') throw_at(text_, open, "these braces hold no option");
    do {
      peek();
      WrittenOption option;
      option.position = pos_;
      option.key = identifier("an option's key");
      option.if_known = take('?');
      if (!take('=')) fail("'=' and a value must follow the key '" + option.key + "'");
      peek();
      option.value_position = pos_;
      option.value = parse_value(text_, pos_);
      for (const WrittenOption& other : item.options) {
        if (other.key == option.key)
          throw_at(text_, option.position, "'" + option.key + "' is given twice for one item");
      }
      if (is_wiring_key(option.key)) check_wiring(text_, option);
      if (item.options.size() == kMaxOptions)
        throw_at(text_, option.position,
                 "one item has more than " + std::to_string(kMaxOptions) + " options");
      item.options.push_back(std::move(option));
    } while (take(','));
    if (!take('}')) {
      if (pos_ < text_.size()) fail("',' or '}' is expected after the value");
      throw_at(text_, open, "this '{' is never closed");
    }
  }

  void share(Item& item) {
    item.share_position = pos_++;
    const char c = peek();
    if (c != '{') {
      if (!is_letter(c)) fail("a share is a letter or a list, as in @A or @{A,B}");
      item.share.emplace_back(1, text_[pos_++]);
    } else {
      const size_t open = pos_++;
      do {
        item.share.push_back(identifier("an entry of the share list"));
        if (item.share.size() > kMaxShares)
          throw_at(text_, open,
                   "a share list has at most " + std::to_string(kMaxShares) + " entries");
      } while (take(','));
      if (!take('}')) {
        if (pos_ < text_.size()) fail("',' or '}' is expected in the share list");
        throw_at(text_, open, "this '{' is never closed");
      }
    }
    if (peek() == '@') fail("an item can have one share only; rotation is written @{A,B}");
  }

  void repetition(Item& item, size_t layers) {
    const size_t caret = pos_++;
    const char c = peek();
    if (c == '-' || c == '+' || !is_digit(c))
      fail("a repetition must be a whole number from 1, as in M^4");
    const size_t start = pos_;
    while (pos_ < text_.size() && is_digit(text_[pos_])) ++pos_;
    const auto [end, ec] = std::from_chars(text_.data() + start, text_.data() + pos_, item.repeat);
    const bool huge = ec != std::errc() || item.repeat > kMaxPatternBlocks;
    if (!huge && item.repeat == 0)
      throw_at(text_, start, "a repetition must be at least 1; leave the item out instead");
    if (huge || layers * (item.repeat - 1) > kMaxPatternBlocks - layers_) {
      throw_at(text_, caret,
               "this repetition makes more than " + std::to_string(kMaxPatternBlocks) + " blocks");
    }
    layers_ += layers * (item.repeat - 1);
    if (peek() == '^') fail("an item can be repeated once only; use a group, as in (M^2)^3");
  }

  static constexpr size_t kMaxOptions = 64;  // of one item

  std::string_view text_;
  size_t pos_ = 0, depth_ = 0, layers_ = 0;
};

}  // namespace

Tree parse(std::string_view text) {
  if (text.size() > kMaxPatternBytes) {
    throw Error("a pattern may have " + std::to_string(kMaxPatternBytes) + " bytes, this one has " +
                std::to_string(text.size()) + "; use repetition");
  }
  Tree tree = Parser(text).tree();
  for (const Seq& stage : tree.stages) {
    if (!stage.empty()) return tree;
  }
  throw_at(text, 0, "the pattern has no blocks; M-M*- is one");
}

void check_wiring(std::string_view text, const WrittenOption& option) {
  const OptionValue& value = option.value;
  const std::string* word = std::get_if<std::string>(&value);
  auto refuse = [&](const std::string& expected) {
    throw_at(
        text, option.value_position,
        "the wiring key '" + option.key + "' takes " + expected + ", got " + value_text(value));
  };
  auto one_of = [&](std::initializer_list<const char*> words) {
    std::string list;
    for (const char* w : words) {
      if (word && *word == w) return;
      list += (list.empty() ? "" : " or ") + std::string(w);
    }
    refuse(list);
  };
  if (option.if_known)
    throw_at(text, option.position,
             "the wiring key '" + option.key + "' is the host's and always known; write '='");
  if (option.key == "residual") return one_of({"add", "none"});
  if (option.key == "out") return one_of({"none", "linear"});
  if (option.key == "to") return one_of({"h", "next", "chain"});
  if (option.key == "lora") {
    const int64_t* rank = std::get_if<int64_t>(&value);
    if (!rank || *rank < 0 || *rank > 65536) refuse("a rank from 0 to 65536");
  } else if (option.key == "in_scale" || option.key == "out_scale") {
    const double* real = std::get_if<double>(&value);
    if (!std::holds_alternative<int64_t>(value) && !(real && *real - *real == 0))
      refuse("a finite number");
  } else if (option.key == "norm") {
    if (!word || word->empty()) refuse("the name of a norm");
  } else {  // in
    bool name_ends = false;
    for (char c : word ? *word : std::string("+")) {
      const bool ok = c == '+' ? name_ends : is_name_start(c) || (name_ends && is_digit(c));
      if (!ok) refuse("names joined by '+', such as h+embed");
      name_ends = c != '+';
    }
    if (!name_ends) refuse("names joined by '+', such as h+embed");
  }
}

}  // namespace strata::pattern
