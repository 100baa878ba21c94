#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/checkpoint/sha256.h"

namespace trireme {

// The safetensors format (huggingface/safetensors): 8 bytes little-endian header length, a JSON
// header with name, dtype, shape and data offsets of each tensor, then the data.

struct TensorEntry {
  std::string name;
  std::vector<int64_t> shape;
};

// Writes fp32 tensors one after the other in the order announced. Throws Error(failed) naming the
// file and the reason; the file is durable once `close` has returned.
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::string& path, const std::vector<TensorEntry>& tensors);
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  void write(std::span<const float> tensor);
  struct Summary {
    uint64_t bytes = 0;
    std::string sha256;
  };
  Summary close();

 private:
  void write_bytes(const void* data, size_t size);
  std::string path_;
  int descriptor_ = -1;
  uint64_t bytes_ = 0;
  uint64_t expected_bytes_ = 0;
  Sha256 digest_;
};

// A file mapped read-only. Reading validates that every tensor lies inside the file; throws
// Error(bad_input) otherwise.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  struct Tensor {
    std::string dtype;  // F32, F16 or BF16
    std::vector<int64_t> shape;
    uint64_t begin = 0;  // in the data part
  };
  const std::map<std::string, Tensor>& tensors() const { return tensors_; }
  const std::string& path() const { return path_; }
  // Elements [first, first + to.size()) of a tensor, as fp32.
  void read(const Tensor& tensor, int64_t first, std::span<float> to) const;

 private:
  std::string path_;
  const char* data_ = nullptr;
  size_t bytes_ = 0;
  size_t data_begin_ = 0;
  std::map<std::string, Tensor> tensors_;
};

}  // namespace trireme
