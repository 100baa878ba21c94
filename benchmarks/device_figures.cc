// How far is the planner from what one accelerator really takes?
//
//   device-figures DEVICE FOLDER
//
// Compares the figures of a catalogue device with the measured products, attention, layers and
// steps of docs/measurements/hopper/measure.py, or with its drawn steps alone.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "planner/cost/kernels.h"
#include "planner/search.h"
#include "topology/cluster.h"

namespace trireme::bench {
namespace {

// A line of a CSV file by its column names.
struct Row {
  std::map<std::string, std::string> cells;

  const std::string& text(const std::string& column) const { return cells.at(column); }
  double number(const std::string& column) const { return std::stod(text(column)); }
  int integer(const std::string& column) const { return std::stoi(text(column)); }
};

std::vector<std::string> split(const std::string& line) {
  std::vector<std::string> cells;
  std::stringstream stream(line);
  for (std::string cell; std::getline(stream, cell, ',');) cells.push_back(cell);
  return cells;
}

std::vector<Row> read(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) throw std::runtime_error("cannot read " + path);
  const std::vector<std::string> columns = split(line);
  std::vector<Row> rows;
  while (std::getline(file, line)) {
    const std::vector<std::string> cells = split(line);
    if (cells.size() != columns.size()) throw std::runtime_error("odd line in " + path);
    Row row;
    for (size_t i = 0; i < cells.size(); ++i) row.cells[columns[i]] = cells[i];
    rows.push_back(std::move(row));
  }
  return rows;
}

// Predicted over measured, less one.
class Errors {
 public:
  void add(double predicted, double measured) {
    each_.push_back(predicted / measured - 1);
    predicted_ += predicted;
    measured_ += measured;
  }
  void print(const std::string& what) {
    if (each_.empty()) return;
    double bias = 0;
    for (const double error : each_) bias += error / static_cast<double>(each_.size());
    std::vector<double> sizes = each_;
    for (double& size : sizes) size = std::abs(size);
    std::sort(sizes.begin(), sizes.end());
    double mean = 0;
    for (const double size : sizes) mean += size / static_cast<double>(sizes.size());
    fmt::print("{:<28} {:>5} {:>8.1f} {:>8.1f} {:>8.1f} {:>+8.1f} {:>+8.1f}\n", what, sizes.size(),
               100 * mean, 100 * sizes[sizes.size() / 2], 100 * sizes[sizes.size() * 9 / 10],
               100 * bias, 100 * (predicted_ / measured_ - 1));
  }

 private:
  std::vector<double> each_;
  double predicted_ = 0, measured_ = 0;
};

// What a process of one device measures is bound by the host below this, not by the device.
constexpr double kShortest = 40e-6;

WorkShape mixed_precision(int micro_batch, int tensor) {
  WorkShape shape;
  shape.micro_batch = micro_batch;
  shape.tensor = tensor;
  shape.dtype = Dtype::bf16;
  return shape;
}

Model model_of(const Row& row) {
  Model model;
  model.family = row.integer("gated") != 0 ? Family::llama : Family::gpt2;
  model.layers = 1;
  model.hidden = row.integer("hidden");
  model.heads = row.integer("heads");
  model.kv_heads = row.integer("kv_heads");
  model.head_dim = row.integer("head_dim");
  model.ffn_hidden = row.integer("ffn_hidden");
  model.vocab = row.integer("vocab");
  model.sequence = model.positions = row.integer("sequence");
  return model;
}

void compare_products(const DeviceSpeed& speed, const std::string& folder) {
  std::map<std::string, Errors> passes;
  const WorkShape shape = mixed_precision(1, 1);
  for (const Row& row : read(folder + "/products.csv")) {
    const std::string& pass = row.text("pass");
    const double m = row.number("m"), k = row.number("k"), n = row.number("n");
    const double seconds = row.number("seconds");
    if (seconds < kShortest) continue;
    std::vector<Kernel> kernels;
    if (pass == "forward") kernels = linear_kernels(shape, m, k, n).forward;
    if (pass == "input") kernels = linear_kernels(shape, m, n, k).input;
    if (pass == "weight") kernels = linear_kernels(shape, k, m, n).weight;
    passes[pass].add(speed.seconds(kernels), seconds);
  }
  for (auto& [pass, errors] : passes) errors.print("products, " + pass);
}

void compare_attention(const DeviceSpeed& speed, const std::string& folder) {
  std::map<std::string, Errors> passes;
  for (const Row& row : read(folder + "/attention.csv")) {
    if (row.text("library") != "cudnn") continue;
    Model model;
    model.heads = row.integer("heads");
    model.kv_heads = row.integer("kv_heads");
    model.head_dim = row.integer("size");
    model.hidden = model.heads * model.head_dim;
    model.ffn_hidden = model.vocab = 1;
    model.sequence = row.integer("sequence");
    const PartKernels layer = layer_kernels(model, mixed_precision(row.integer("batch"), 1));
    const auto attention_of = [&](const std::vector<Kernel>& kernels) {
      return speed.seconds(*std::find_if(kernels.begin(), kernels.end(), [](const Kernel& kernel) {
        return kernel.kind == Kernel::Kind::attention;
      }));
    };
    if (row.number("forward") < 2 * kShortest) continue;
    passes["forward"].add(attention_of(layer.forward), row.number("forward"));
    passes["backward"].add(attention_of(layer.input), row.number("backward"));
  }
  for (auto& [pass, errors] : passes) errors.print("fused attention, " + pass);
}

void compare_layers(const DeviceSpeed& speed, const std::string& folder) {
  Errors forward, backward, memory;
  for (const Row& row : read(folder + "/layers.csv")) {
    if (row.text("library") != "cudnn") continue;
    const Model model = model_of(row);
    const WorkShape shape = mixed_precision(row.integer("batch"), row.integer("tensor"));
    const PartKernels part = layer_kernels(model, shape);
    if (row.number("forward") < 1e-3) continue;
    forward.add(speed.seconds(part.forward), row.number("forward"));
    backward.add(speed.seconds(part.input) + speed.seconds(part.weight), row.number("backward"));
    Stage stage;
    stage.layers = 1;
    memory.add(stage_activation_bytes(model, shape, false, stage), row.number("activations"));
  }
  forward.print("layers, forward");
  backward.print("layers, backward");
  memory.print("layers, activations");
}

Job job_of(const Row& row) {
  Job job;
  job.model = model_of(row);
  job.model.layers = row.integer("layers");
  job.training.dtype = Dtype::bf16;
  job.training.global_batch = row.integer("micro_batch") * row.integer("micro_batches");
  job.pins.micro_batch = row.integer("micro_batch");
  job.pins.recompute = row.integer("full_recompute") != 0 ? Recompute::full : Recompute::none;
  return job;
}

void compare_steps(const Device& device, const std::string& folder) {
  NodeGroup node;
  node.hosts = {"one"};
  node.device = device;
  node.devices = 1;
  const Cluster cluster{"one", {node}, {}};
  Errors seconds, memory;
  PlanOptions options;
  options.top = 1;
  options.any_memory = true;
  for (const Row& row : read(folder + "/steps.csv")) {
    const Prediction found = find_plan(job_of(row), cluster, options).plan.prediction;
    fmt::print("  {:<16} {:>7.3f} s {:>7.3f} s {:>+6.1f} %  {:>6.2f} GB {:>6.2f} GB {:>+6.1f} %\n",
               row.text("name"), found.step_seconds, row.number("seconds"),
               100 * (found.step_seconds / row.number("seconds") - 1),
               found.memory_bytes_per_pipeline_rank.front() / 1e9, row.number("used") / 1e9,
               100 * (found.memory_bytes_per_pipeline_rank.front() / row.number("used") - 1));
    seconds.add(found.step_seconds, row.number("seconds"));
    memory.add(found.memory_bytes_per_pipeline_rank.front(), row.number("used"));
  }
  seconds.print("steps");
  memory.print("steps, memory in use");
}

void compare(const Device& device, const std::string& folder) {
  const DeviceSpeed speed = device_speed(device, Dtype::bf16, 1, Execution{});
  fmt::print("{:<28} {:>5} {:>8} {:>8} {:>8} {:>8} {:>8}\n", device.name, "rows", "mean %",
             "median", "90th", "bias", "sum");
  const bool parts = std::filesystem::exists(folder + "/products.csv");
  if (parts) {
    compare_products(speed, folder);
    compare_attention(speed, folder);
    compare_layers(speed, folder);
  }
  compare_steps(device, folder);
}

}  // namespace
}  // namespace trireme::bench

int main(int argc, char** argv) {
  const trireme::Device* device = argc == 3 ? trireme::find_device(argv[1]) : nullptr;
  if (device == nullptr) {
    fmt::print(stderr,
               "usage: device-figures DEVICE FOLDER, as in device-figures H100-SXM-80GB "
               "docs/measurements/hopper/h100\n");
    return 2;
  }
  try {
    trireme::bench::compare(*device, argv[2]);
  } catch (const std::exception& error) {
    fmt::print(stderr, "device-figures: {}\n", error.what());
    return 1;
  }
  return 0;
}
