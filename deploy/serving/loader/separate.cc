// Separates mixtures with TensorFlow's C++ library and nothing else: the SavedModel loader is the one that TensorFlow
// Serving is built on.
//
//   separate SAVED_MODEL SIGNATURE MIXTURES OUTPUT
//
// SAVED_MODEL is a version folder of an export (saved_model/1), SIGNATURE one of its signatures of one float32 input
// (separate, encode, decode). MIXTURES is a .npy of float32, or a file of nothing but float32 values in the machine's
// byte order; its first axis is the batch. The folder OUTPUT gets a .npy for each output of the signature, by its name.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/public/session.h"

namespace {

using Shape = std::vector<int64_t>;

struct Array {
  Shape shape;
  std::string bytes;  // float32, in the machine's byte order
};

[[noreturn]] void Fail(const std::string& what) { throw std::runtime_error(what); }

std::string Text(const Shape& shape) {
  std::ostringstream text;
  text << "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    text << (i ? ", " : "") << (shape[i] < 0 ? "batch" : std::to_string(shape[i]));
  }
  return text.str() + "]";
}

int64_t NumValues(Shape::const_iterator begin, Shape::const_iterator end) {
  int64_t count = 1;
  for (auto size = begin; size != end; ++size) count *= *size;
  return count;
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) Fail(path + " cannot be opened");
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// The value of a key in a .npy header, a Python dictionary: up to `end`.
std::string HeaderValue(const std::string& header, const std::string& key, const std::string& begin, char end) {
  const size_t start = header.find("'" + key + "': " + begin);
  if (start == std::string::npos) return "";
  const size_t value = start + key.size() + 4 + begin.size();
  return header.substr(value, header.find(end, value) - value);
}

// Reads version 1 to 3 of the format.
Array ReadNpy(const std::string& path, const std::string& content) {
  const size_t prefix = content.size() > 6 && content[6] == 1 ? 10 : 12;
  if (content.size() < prefix) Fail(path + " is cut short");
  size_t length = 0;
  for (size_t i = prefix; i-- > 8;) length = length << 8 | static_cast<unsigned char>(content[i]);
  if (content.size() - prefix < length) Fail(path + " is cut short");
  const std::string header = content.substr(prefix, length);
  const std::string type = HeaderValue(header, "descr", "'", '\'');
  if (type != "<f4") Fail(path + " holds " + (type.empty() ? "no plain array" : type) + "; save it as float32 (<f4)");
  if (HeaderValue(header, "fortran_order", "", ',') != "False") Fail(path + " is in Fortran order; save it in C order");

  Array array;
  std::istringstream sizes(HeaderValue(header, "shape", "(", ')'));
  for (std::string size; std::getline(sizes, size, ',');) {
    if (size.find_first_of("0123456789") == std::string::npos) continue;
    array.shape.push_back(std::strtoll(size.c_str(), nullptr, 10));
    if (array.shape.back() > static_cast<int64_t>(content.size())) Fail(path + " is cut short");
  }
  array.bytes = content.substr(prefix + length);
  if (NumValues(array.shape.begin(), array.shape.end()) * sizeof(float) != array.bytes.size()) {
    Fail(path + " has another length than its header says");
  }
  return array;
}

Array ReadMixtures(const std::string& path, const Shape& expected) {
  std::string content = ReadFile(path);
  Array array;
  if (content.rfind("\x93NUMPY", 0) == 0) {
    array = ReadNpy(path, content);
  } else {
    const size_t one = NumValues(expected.begin() + 1, expected.end()) * sizeof(float);
    if (content.empty() || content.size() % one != 0) {
      Fail(path + " has " + std::to_string(content.size()) + " bytes; expected a multiple of " + std::to_string(one) +
           ", one mixture of " + Text(expected));
    }
    array.shape = expected;
    array.shape[0] = content.size() / one;
    array.bytes = std::move(content);
  }
  bool fits = array.shape.size() == expected.size() && array.shape[0] > 0;
  for (size_t i = 0; fits && i < expected.size(); ++i) fits = expected[i] < 0 || expected[i] == array.shape[i];
  if (!fits) Fail(path + " has shape " + Text(array.shape) + "; expected " + Text(expected));
  return array;
}

void WriteNpy(const std::filesystem::path& path, const tensorflow::Tensor& tensor) {
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (";
  for (const auto& dimension : tensor.shape()) header += std::to_string(dimension.size) + ", ";
  header += "), }";
  header.append(63 - (header.size() + 10) % 64, ' ');
  header += '\n';
  std::ofstream file(path, std::ios::binary);
  const char version[] = {1, 0, static_cast<char>(header.size() & 0xff), static_cast<char>(header.size() >> 8)};
  file << "\x93NUMPY";
  file.write(version, sizeof version);
  file << header;
  file.write(static_cast<const char*>(tensor.data()), tensor.TotalBytes());
  file.close();
  if (!file) Fail(path.string() + " cannot be written");
}

void Separate(const std::string& model, const std::string& name, const std::string& mixtures,
              const std::filesystem::path& output) {
  if (!tensorflow::MaybeSavedModelDirectory(model)) Fail(model + " is no SavedModel: it has no saved_model.pb");
  tensorflow::SavedModelBundle bundle;
  const auto loaded = tensorflow::LoadSavedModel(tensorflow::SessionOptions(), tensorflow::RunOptions(), model,
                                                 {"serve"}, &bundle);
  if (!loaded.ok()) Fail(model + " cannot be loaded: " + std::string(loaded.message()));

  const auto& signatures = bundle.meta_graph_def.signature_def();
  const auto found = signatures.find(name);
  if (found == signatures.end()) {
    std::set<std::string> names;
    for (const auto& signature : signatures) {
      if (signature.first.rfind("__", 0) != 0) names.insert(signature.first);
    }
    std::string known;
    for (const auto& each : names) known += " " + each;
    Fail(model + " has no signature " + name + "; it has:" + known);
  }
  const auto& signature = found->second;
  if (signature.inputs().size() != 1 || signature.inputs().begin()->second.dtype() != tensorflow::DT_FLOAT) {
    Fail("the signature " + name + " has not one float32 input; this program runs no other");
  }
  const auto& input = signature.inputs().begin()->second;
  Shape expected;
  for (const auto& dimension : input.tensor_shape().dim()) expected.push_back(dimension.size());

  const Array array = ReadMixtures(mixtures, expected);
  tensorflow::Tensor tensor(tensorflow::DT_FLOAT, tensorflow::TensorShape(array.shape));
  std::memcpy(tensor.data(), array.bytes.data(), array.bytes.size());

  std::vector<std::string> names, tensors;
  for (const auto& each : signature.outputs()) {
    if (each.second.dtype() != tensorflow::DT_FLOAT) Fail("the output " + each.first + " is not float32");
    names.push_back(each.first);
    tensors.push_back(each.second.name());
  }
  std::vector<tensorflow::Tensor> results;
  const auto run = bundle.GetSession()->Run({{input.name(), tensor}}, tensors, {}, &results);
  if (!run.ok()) Fail("the model cannot be run: " + std::string(run.message()));

  std::error_code error;
  std::filesystem::create_directories(output, error);
  if (error) Fail(output.string() + " cannot be made: " + error.message());
  for (size_t i = 0; i < results.size(); ++i) WriteNpy(output / (names[i] + ".npy"), results[i]);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::cerr << "usage: separate SAVED_MODEL SIGNATURE MIXTURES OUTPUT\n";
    return 2;
  }
  setenv("TF_CPP_MIN_LOG_LEVEL", "2", /*overwrite=*/0);
  try {
    Separate(argv[1], argv[2], argv[3], argv[4]);
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 2;
  }
  return 0;
}
