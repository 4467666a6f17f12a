// JSON values, a bounds-checked reader and a deterministic writer (RFC 8259).
//
// Foreign files are untrusted: nesting is limited while parsing, strings are checked to be UTF-8,
// duplicate keys are refused. Two extensions that model configs use are read: the bare literals
// Infinity, -Infinity and NaN (Python's json module writes them), and {"__float__": "Infinity"}.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/contract/error.h"

namespace strata {

// One JSON value. Objects keep the order of their keys.
class STRATA_API Json {
 public:
  enum class Kind { null, boolean, integer, real, string, array, object };
  struct Member;
  using Array = std::vector<Json>;
  using Object = std::vector<Member>;

  Json();
  Json(bool value);
  Json(int value);
  Json(int64_t value);
  Json(double value);
  Json(const char* value);
  Json(std::string value);
  Json(std::string_view value);
  Json(const Json&);
  Json(Json&&) noexcept;
  Json& operator=(const Json&);
  Json& operator=(Json&&) noexcept;
  ~Json();
  static Json array();
  static Json object();
  static Json object(Object members);  // keys must differ

  Kind kind() const { return static_cast<Kind>(value_.index()); }
  bool is_null() const { return kind() == Kind::null; }
  bool is_number() const { return kind() == Kind::integer || kind() == Kind::real; }
  bool is_string() const { return kind() == Kind::string; }
  bool is_array() const { return kind() == Kind::array; }
  bool is_object() const { return kind() == Kind::object; }

  // The value as a type; throws Error "<where> must be an integer, got the string "x"" if it has
  // another one. `where` names the place for the reader: "config.json: num_heads".
  bool as_bool(std::string_view where) const;
  int64_t as_int(std::string_view where) const;    // also reals without a fraction
  double as_double(std::string_view where) const;  // integers too
  const std::string& as_string(std::string_view where) const;
  const Array& as_array(std::string_view where) const;
  const Object& as_object(std::string_view where) const;

  // The member of an object, or null if this is no object or has no such key. Linear in the keys.
  const Json* find(std::string_view key) const;
  // The same; throws Error "<where> has no key ..." if there is none.
  const Json& at(std::string_view key, std::string_view where) const;

  // Building: set() replaces or appends a member (a null becomes an object), push() appends an
  // element (a null becomes an array). Both return *this.
  Json& set(std::string_view key, Json value);
  Json& push(Json value);

  // Text with keys in their order. indent < 0: one line; else that many spaces a level. Reals are
  // the shortest text that reads back as the same double; Infinity and NaN are bare literals.
  std::string dump(int indent = -1) const;
  // The value in a few words, for messages: `the string "x"`, `an object with 3 keys`.
  std::string describe() const;

  bool operator==(const Json& other) const;

 private:
  std::variant<std::nullptr_t, bool, int64_t, double, std::string, Array, Object> value_;
};

struct Json::Member {
  std::string key;
  Json value;
  bool operator==(const Member& other) const;
};

inline constexpr int kJsonMaxDepth = 256;

// Parses one JSON text. `where` is the file's name for messages. Throws Error (line, byte,
// expected, got) for anything that is not a single valid value, is nested deeper than
// kJsonMaxDepth, repeats a key in one object or is not UTF-8.
STRATA_API Json parse_json(std::string_view text, std::string_view where);

// Reads and parses a file of at most max_bytes.
STRATA_API Json read_json(const std::string& path, size_t max_bytes = size_t{1} << 28);

// True if the text is valid UTF-8 (RFC 3629: no overlong forms, no surrogates); `bad_byte` gets
// the offset of the first bad sequence.
STRATA_API bool is_utf8(std::string_view text, size_t* bad_byte = nullptr);

}  // namespace strata
