// Measures a SavedModel in TensorFlow's own C++ loader, which TensorFlow Serving is built on:
//   load SAVED_MODEL SIGNATURE THREADS SECONDS [BATCH CLIENTS]...
// For each pair, CLIENTS threads send requests of BATCH mixtures for SECONDS, each waiting for its answer before the
// next. Prints one JSON object a line: requests, seconds, milliseconds of the 50th and 99th percentile, and the
// megabytes that the process holds and has held at most. THREADS limits TensorFlow's threads, as the server's
// --tensorflow_intra_op_parallelism and --tensorflow_inter_op_parallelism do.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/public/session.h"

namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

// VmRSS or VmHWM of this process, in megabytes.
double Megabytes(const std::string& field) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(field + ":", 0) == 0) return std::stod(line.substr(field.size() + 1)) * 1024 / 1e6;
  }
  return 0;
}

class Model {
 public:
  Model(const std::string& path, const std::string& name, int threads) {
    tensorflow::SessionOptions options;
    options.config.set_intra_op_parallelism_threads(threads);
    options.config.set_inter_op_parallelism_threads(threads);
    const auto loaded = tensorflow::LoadSavedModel(options, tensorflow::RunOptions(), path, {"serve"}, &bundle_);
    if (!loaded.ok()) throw std::runtime_error(path + " cannot be loaded: " + std::string(loaded.message()));
    const auto& signatures = bundle_.meta_graph_def.signature_def();
    const auto found = signatures.find(name);
    if (found == signatures.end() || found->second.inputs().size() != 1) {
      throw std::runtime_error(path + " has no signature " + name + " of one input");
    }
    input_ = found->second.inputs().begin()->second;
    for (const auto& output : found->second.outputs()) outputs_.push_back(output.second.name());
  }

  tensorflow::Tensor Mixtures(int64_t batch) const {
    tensorflow::TensorShape shape;
    shape.AddDim(batch);
    for (int i = 1; i < input_.tensor_shape().dim_size(); ++i) shape.AddDim(input_.tensor_shape().dim(i).size());
    tensorflow::Tensor tensor(tensorflow::DT_FLOAT, shape);
    std::mt19937 random(0);
    std::uniform_real_distribution<float> values(0, 1);
    float* begin = static_cast<float*>(tensor.data());
    std::generate(begin, begin + tensor.NumElements(), [&] { return values(random); });
    return tensor;
  }

  void Run(const tensorflow::Tensor& mixtures) const {
    std::vector<tensorflow::Tensor> results;
    const auto run = bundle_.GetSession()->Run({{input_.name(), mixtures}}, outputs_, {}, &results);
    if (!run.ok()) throw std::runtime_error("the model cannot be run: " + std::string(run.message()));
  }

 private:
  tensorflow::SavedModelBundle bundle_;
  tensorflow::TensorInfo input_;
  std::vector<std::string> outputs_;
};

void Measure(const Model& model, int64_t batch, int clients, double seconds) {
  const tensorflow::Tensor mixtures = model.Mixtures(batch);
  for (int i = 0; i < 3; ++i) model.Run(mixtures);  // the first ones are slow
  std::vector<std::vector<double>> took(clients);
  std::vector<std::thread> threads;
  std::atomic<bool> failed = false;
  const auto start = Clock::now();
  for (auto& mine : took) {
    threads.emplace_back([&] {
      try {
        while (!failed && Seconds(Clock::now() - start) < seconds) {
          const auto sent = Clock::now();
          model.Run(mixtures);
          mine.push_back(1e3 * Seconds(Clock::now() - sent));
        }
      } catch (const std::exception& error) {
        if (!failed.exchange(true)) std::cerr << "error: " << error.what() << "\n";
      }
    });
  }
  for (auto& thread : threads) thread.join();
  const double elapsed = Seconds(Clock::now() - start);
  if (failed) throw std::runtime_error("a request failed");
  std::vector<double> all;
  for (const auto& mine : took) all.insert(all.end(), mine.begin(), mine.end());
  std::sort(all.begin(), all.end());
  const auto percentile = [&](double part) { return all[static_cast<size_t>(part * (all.size() - 1))]; };
  std::cout << "{\"batch\": " << batch << ", \"clients\": " << clients << ", \"requests\": " << all.size()
            << ", \"seconds\": " << elapsed << ", \"p50_ms\": " << percentile(0.5)
            << ", \"p99_ms\": " << percentile(0.99) << ", \"megabytes\": " << Megabytes("VmRSS")
            << ", \"most_megabytes\": " << Megabytes("VmHWM") << "}" << std::endl;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 7 || argc % 2 == 0) {
    std::cerr << "usage: load SAVED_MODEL SIGNATURE THREADS SECONDS [BATCH CLIENTS]...\n";
    return 2;
  }
  setenv("TF_CPP_MIN_LOG_LEVEL", "2", /*overwrite=*/0);
  try {
    const Model model(argv[1], argv[2], std::stoi(argv[3]));
    for (int i = 5; i < argc; i += 2) {
      Measure(model, std::stoll(argv[i]), std::stoi(argv[i + 1]), std::stod(argv[4]));
    }
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 2;
  }
  return 0;
}
