#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "planner/plan/model.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/model/parameters.h"

namespace trireme {

// The weights of a Hugging Face model directory (model.safetensors, or shards with their index),
// read by our parameters: any slice of any parameter, wherever its tensor lies. Throws
// Error(bad_input) naming the file and tensor for what is missing or has another shape than the
// model.
class ModelFiles {
 public:
  ModelFiles(const std::string& directory, const Model& model);
  // The local part of a parameter.
  void read(const ParameterSpec& spec, float* local) const;

 private:
  struct Place {
    const SafetensorsFile* file = nullptr;
    const SafetensorsFile::Tensor* tensor = nullptr;
    bool transposed = false;
    int64_t first_row = 0;  // of the parameter among the stacked parts
    int64_t total_rows = 0;
  };
  void place_parameters(const std::string& directory, const Model& model);

  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, Place> places_;  // by our name
};

// Optimizer state of a checkpoint: the files optimizer*.safetensors hold "momentum.NAME" and
// "variance.NAME" with our names and global shapes.
class OptimizerFiles {
 public:
  explicit OptimizerFiles(const std::string& directory);
  // kind: "momentum" or "variance".
  void read(const std::string& kind, const ParameterSpec& spec, float* local) const;

 private:
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
};

}  // namespace trireme
