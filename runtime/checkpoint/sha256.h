#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace trireme {

// SHA-256 of bytes that come one after another, as text.
class Sha256 {
 public:
  Sha256();
  void add(const void* data, size_t size);
  // Once, at the end.
  std::string hex();

 private:
  std::shared_ptr<void> context_;
};

}  // namespace trireme
