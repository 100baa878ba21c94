#include "runtime/device/emulated_device.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <algorithm>

#include "topology/base/error.h"

namespace trireme {
namespace {

size_t mapped_bytes(size_t floats) {
  return std::max<size_t>(floats, 1) * sizeof(float);
}

}  // namespace

EmulatedDevice::~EmulatedDevice() {
  for (auto& [floats, free] : free_) {
    for (float* memory : free) munmap(memory, mapped_bytes(floats));
  }
}

Buffer EmulatedDevice::allocate(size_t floats) {
  const std::lock_guard lock(mutex_);
  auto& free = free_[floats];
  if (!free.empty()) {
    float* memory = free.back();
    free.pop_back();
    return {this, memory, floats};
  }
  void* memory = mmap(nullptr, mapped_bytes(floats), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    throw Error(ErrorKind::failed,
                fmt::format("no address space for {} emulated bytes", mapped_bytes(floats)));
  }
  return {this, static_cast<float*>(memory), floats};
}

void EmulatedDevice::give_back(float* data, size_t size) {
  const std::lock_guard lock(mutex_);
  free_[size].push_back(data);
}

std::unique_ptr<Weight> EmulatedDevice::weight(const float*, int, int, bool) {
  struct Nothing final : Weight {
    void changed() override {}
  };
  return std::make_unique<Nothing>();
}

}  // namespace trireme
