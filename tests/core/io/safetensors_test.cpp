#include "core/io/safetensors.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "tests/support/error_text.h"
#include "tests/support/temp_folder.h"

using namespace strata;
using strata::test::error_text;
using strata::test::TempFolder;

namespace {

std::string file_of(std::string_view header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string text(8, '\0');
  std::memcpy(text.data(), &length, 8);
  text += header;
  for (size_t i = 0; i < data_bytes; ++i) text += static_cast<char>(i);
  return text;
}

// What the reader says about a file with this header and that many bytes of data.
std::string refusal(std::string_view header, size_t data_bytes) {
  const TempFolder folder;
  const std::string path = folder.write("m.safetensors", file_of(header, data_bytes));
  const std::string text = error_text([&] { Safetensors file(path); });
  if (text.starts_with(path)) return "m" + text.substr(path.size());
  return text;
}

template <class T>
StoredTensor stored(std::string name, DType dtype, std::vector<int64_t> shape,
                    const std::vector<T>& values) {
  return {std::move(name), dtype, std::move(shape), values.data(), values.size() * sizeof(T)};
}

}  // namespace

TEST_CASE("safetensors: what is written is read, byte by byte and in order") {
  const TempFolder folder;
  const std::string path = folder / "m.safetensors";
  const std::vector<float> w{1, 2, 3, 4, 5, 6};
  const std::vector<double> scalar{0.5};
  const std::vector<uint8_t> odd{1, 0, 1};
  const std::vector<uint16_t> half{0x3C00, 0xC000, 0x0001, 0x7C00}, brain{0x3F80, 0xC000};
  const std::vector<int64_t> none;
  const std::vector<StoredTensor> tensors{
      stored("w", DType::f32, {2, 3}, w),       stored("flags", DType::boolean, {3}, odd),
      stored("s", DType::f64, {}, scalar),      stored("half", DType::f16, {4}, half),
      stored("brain", DType::bf16, {2}, brain), stored("none", DType::i64, {0, 4}, none)};
  write_safetensors(path, tensors, {{"format", "pt"}});
  const Safetensors file(path);
  REQUIRE(file.tensors().size() == tensors.size());
  CHECK(file.metadata().at("format") == "pt");
  for (const StoredTensor& tensor : tensors) {
    CAPTURE(tensor.name);
    const StoredTensor& back = file.at(tensor.name);
    CHECK(back.dtype == tensor.dtype);
    CHECK(back.shape == tensor.shape);
    REQUIRE(back.bytes == tensor.bytes);
    CHECK((back.bytes == 0 || std::memcmp(back.data, tensor.data, back.bytes) == 0));
    // "s" lies at an odd address in the file and must not for its readers.
    CHECK(reinterpret_cast<uintptr_t>(back.data) % size_of(back.dtype) == 0);
  }
  CHECK(file.tensors()[1].name == "flags");
  CHECK(values_of(file.at("s")) == std::vector<double>{0.5});
  CHECK(values_of(file.at("brain")) == std::vector<double>{1, -2});
  CHECK(values_of(file.at("half")) ==
        std::vector<double>{1, -2, std::ldexp(1, -24), std::numeric_limits<double>::infinity()});
  CHECK(file.find("x") == nullptr);
  CHECK(error_text([&] { file.at("x"); }) == path + ": there is no tensor x");
}

TEST_CASE("safetensors: every broken header is one sentence with file and tensor") {
  const auto one = [](const char* dtype, const char* shape, const char* offsets) {
    return std::string("{\"a\":{\"dtype\":\"") + dtype + "\",\"shape\":" + shape +
           ",\"data_offsets\":" + offsets + "}}";
  };
  CHECK(refusal(one("F32", "[2]", "[0,8]"), 8).empty());
  CHECK(refusal(one("F32", "[2]", "[0,8]"), 7) ==
        "m: tensor a: data_offsets [0, 8] are out of range, the file has 7 bytes of data");
  CHECK(refusal(one("F32", "[2]", "[0,8]"), 9) ==
        "m: the tensors need 8 bytes of data, the file has 9");
  CHECK(refusal(one("F32", "[3]", "[0,8]"), 8) ==
        "m: tensor a: shape [3] of F32 does not fit its 8 bytes");
  CHECK(refusal(one("F32", "[2]", "[8,0]"), 8).find("out of range") != std::string::npos);
  CHECK(refusal(one("F32", "[2]", "[-8,0]"), 8).find("must not be negative, got -8") !=
        std::string::npos);
  CHECK(refusal(one("F32", "[2]", "[0]"), 8).find("[begin, end], got 1 values") !=
        std::string::npos);
  CHECK(refusal(one("F32", "[2]", "[0,1.5]"), 8).find("must be an integer, got 1.5") !=
        std::string::npos);
  CHECK(refusal(one("U32", "[2]", "[0,8]"), 8).find("F8_E4M3, got \"U32\"") != std::string::npos);
  CHECK(refusal(one("F32", "[-2]", "[0,8]"), 8).find("must not be negative, got [-2]") !=
        std::string::npos);
  // 2^62 floats need 2^64 bytes, which wraps to 0.
  CHECK(refusal(one("F32", "[4611686018427387904]", "[0,0]"), 0).find("does not fit its 0 bytes") !=
        std::string::npos);
  CHECK(refusal(one("F32", "[4294967296,4294967296]", "[0,0]"), 0).find("is too large") !=
        std::string::npos);
  CHECK(refusal("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
                "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[2,6]}}",
                6) == "m: tensor b: its bytes [2, 6) overlap those of a, which end at 4");
  CHECK(refusal("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}", 8) ==
        "m: tensor a: its bytes begin at 4, which leaves a gap after byte 0");
  CHECK(refusal("{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},"
                "\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
                0)
            .find("the key \"a\" is there twice") != std::string::npos);
  CHECK(refusal("{\"a\":{\"shape\":[0],\"data_offsets\":[0,0]}}", 0) ==
        "m: tensor a has no key \"dtype\"");
  CHECK(refusal("{\"a\":7}", 0) == "m: tensor a must be an object, got 7");
  CHECK(refusal("[1]", 0).find("begins with '{'") != std::string::npos);
  CHECK(refusal("{\"a\"", 0).find("expected ':'") != std::string::npos);
  CHECK(refusal("{\"__metadata__\":{\"k\":1}}", 0) == "m: __metadata__ k must be a string, got 1");
}

TEST_CASE("safetensors: a bad length and a cut file are refused") {
  const TempFolder folder;
  const auto refused = [&](std::string content) {
    const std::string path = folder.write("m", content);
    return error_text([&] { Safetensors file(path); });
  };
  CHECK(refused("abc").find("at least 8 bytes, got 3") != std::string::npos);
  CHECK(refused(std::string(8, '\xFF')).find("bad header length 18446744073709551615") !=
        std::string::npos);
  CHECK(refused(std::string("\x09\0\0\0\0\0\0\0{}", 10))
            .find("bad header length 9, expected at "
                  "most 2") != std::string::npos);
  const std::string good =
      file_of("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4);
  for (size_t cut = 0; cut < good.size(); ++cut) CHECK(!refused(good.substr(0, cut)).empty());
  CHECK(refused(good).empty());
  CHECK(error_text([&] { Safetensors file(folder / "none"); }).ends_with("no such file"));
}

TEST_CASE("safetensors: shards are read through their index") {
  const TempFolder folder;
  const std::vector<float> a{1, 2}, b{3};
  write_safetensors(folder / "m-1.safetensors", {stored("a", DType::f32, {2}, a)});
  write_safetensors(folder / "m-2.safetensors", {stored("b", DType::f32, {1}, b)});
  const char* index = "model.safetensors.index.json";
  folder.write(index, "{\"weight_map\": {\"a\": \"m-1.safetensors\", \"b\": \"m-2.safetensors\"}}");
  const TensorFiles files(folder.path());
  CHECK(files.tensors().size() == 2);
  CHECK(values_of(*files.find("b")) == std::vector<double>{3});
  CHECK(files.file_of("b") == folder / "m-2.safetensors");

  folder.write(index, "{\"weight_map\": {\"a\": \"m-1.safetensors\", \"c\": \"m-2.safetensors\"}}");
  CHECK(error_text([&] {
          TensorFiles bad(folder.path());
        }).ends_with("tensor c: it is not in m-2.safetensors"));
  folder.write(index, "{\"weight_map\": {\"a\": \"../m-1.safetensors\"}}");
  CHECK(error_text([&] { TensorFiles bad(folder.path()); }).find("a file name without folders") !=
        std::string::npos);
  write_safetensors(folder / "m-2.safetensors",
                    {stored("a", DType::f32, {2}, a), stored("b", DType::f32, {1}, b)});
  folder.write(index, "{\"weight_map\": {\"a\": \"m-1.safetensors\", \"b\": \"m-2.safetensors\"}}");
  CHECK(error_text([&] { TensorFiles bad(folder.path()); }).find("it is also in") !=
        std::string::npos);
  const TempFolder empty;
  CHECK(error_text([&] { TensorFiles bad(empty.path()); }).find("expected model.safetensors or") !=
        std::string::npos);
}

TEST_CASE("safetensors: a wrong tensor is not written") {
  const TempFolder folder;
  const std::vector<float> a{1, 2};
  const std::string path = folder / "m.safetensors";
  CHECK(error_text([&] { write_safetensors(path, {stored("a", DType::f32, {3}, a)}); }) ==
        path + ": tensor a: shape [3] of F32 does not fit its 8 bytes");
  CHECK(
      error_text([&] {
        write_safetensors(path, {stored("a", DType::f32, {2}, a), stored("a", DType::f32, {2}, a)});
      }) == path + ": tensor a: it is given twice");
  CHECK(!std::filesystem::exists(path));
}
