#include "runtime/checkpoint/safetensors.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "topology/base/check.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit

Error file_error(const std::string& path, const char* what) {
  return {ErrorKind::failed, fmt::format("{}: {}: {}", path, what, std::strerror(errno))};
}
Error malformed(const std::string& path, const std::string& what) {
  return {ErrorKind::bad_input, fmt::format("{}: not a safetensors file: {}", path, what)};
}

int64_t elements(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t n : shape) count *= n;
  return count;
}

// Whether a tensor of this shape takes so many bytes. Sizes that overflow do not.
bool takes(const std::vector<int64_t>& shape, size_t width, uint64_t bytes) {
  uint64_t size = width;
  for (const int64_t n : shape) {
    if (n < 0 || __builtin_mul_overflow(size, static_cast<uint64_t>(n), &size)) return false;
  }
  return size == bytes;
}

float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000U) << 16;
  const uint32_t exponent = (half >> 10) & 0x1FU;
  const uint32_t fraction = half & 0x3FFU;
  if (exponent == 0) {  // zero or subnormal: fraction * 2^-24
    const float value = static_cast<float>(fraction) * 0x1p-24F;
    return sign != 0 ? -value : value;
  }
  const uint32_t bits =
      sign | (exponent == 31 ? 0x7F800000U : (exponent + 112) << 23) | (fraction << 13);
  float value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

float brain_to_float(uint16_t brain) {
  const uint32_t bits = static_cast<uint32_t>(brain) << 16;
  float value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

size_t width_of(const std::string& dtype) {
  if (dtype == "F32") return 4;
  if (dtype == "F16" || dtype == "BF16") return 2;
  return 0;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(const std::string& path,
                                     const std::vector<TensorEntry>& tensors)
    : path_(path) {
  auto header = nlohmann::json::object();
  header["__metadata__"] = {{"format", "pt"}};
  uint64_t offset = 0;
  for (const auto& tensor : tensors) {
    const uint64_t end = offset + static_cast<uint64_t>(elements(tensor.shape)) * sizeof(float);
    header[tensor.name] = {
        {"dtype", "F32"}, {"shape", tensor.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // data begins at a multiple of 8
  expected_bytes_ = 8 + text.size() + offset;
  descriptor_ = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor_ < 0) throw file_error(path_, "cannot be created");
  const uint64_t size = text.size();
  write_bytes(&size, sizeof size);
  write_bytes(text.data(), text.size());
}

SafetensorsWriter::~SafetensorsWriter() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void SafetensorsWriter::write_bytes(const void* data, size_t size) {
  digest_.add(data, size);
  bytes_ += size;
  const char* from = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = ::write(descriptor_, from, size);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw file_error(path_, "cannot be written");
    from += written;
    size -= static_cast<size_t>(written);
  }
}

void SafetensorsWriter::write(std::span<const float> tensor) {
  write_bytes(tensor.data(), tensor.size_bytes());
}

SafetensorsWriter::Summary SafetensorsWriter::close() {
  TRIREME_CHECK(bytes_ == expected_bytes_);
  if (fsync(descriptor_) != 0) throw file_error(path_, "cannot be synced");
  const int result = ::close(descriptor_);
  descriptor_ = -1;
  if (result != 0) throw file_error(path_, "cannot be closed");
  return {bytes_, digest_.hex()};
}

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat info {};
  if (descriptor < 0 || fstat(descriptor, &info) != 0) {
    const Error error(ErrorKind::bad_input,
                      fmt::format("{}: cannot be read: {}", path, std::strerror(errno)));
    if (descriptor >= 0) ::close(descriptor);
    throw error;
  }
  bytes_ = static_cast<size_t>(info.st_size);
  void* mapped =
      bytes_ >= 8 ? mmap(nullptr, bytes_, PROT_READ, MAP_PRIVATE, descriptor, 0) : MAP_FAILED;
  ::close(descriptor);
  if (mapped == MAP_FAILED) throw malformed(path, fmt::format("it has {} bytes", bytes_));
  data_ = static_cast<const char*>(mapped);
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, data_, sizeof header_bytes);
  if (header_bytes > kMaxHeaderBytes || header_bytes + 8 > bytes_) {
    throw malformed(path, fmt::format("its header claims {} bytes", header_bytes));
  }
  data_begin_ = 8 + header_bytes;
  const auto header = nlohmann::json::parse(data_ + 8, data_ + data_begin_, nullptr, false);
  if (!header.is_object()) throw malformed(path, "its header is not a JSON object");
  try {
    for (const auto& [name, value] : header.items()) {
      if (name == "__metadata__") continue;
      const auto& offsets = value.at("data_offsets");
      const bool unsigned_offsets =
          offsets.at(0).is_number_unsigned() && offsets.at(1).is_number_unsigned();
      Tensor tensor{value.at("dtype"), value.at("shape").get<std::vector<int64_t>>(),
                    offsets.at(0).get<uint64_t>()};
      const auto end = offsets.at(1).get<uint64_t>();
      const size_t width = width_of(tensor.dtype);
      const bool inside = unsigned_offsets && tensor.begin <= end && end <= bytes_ - data_begin_;
      if (!inside || (width > 0 && !takes(tensor.shape, width, end - tensor.begin))) {
        throw malformed(path, fmt::format("tensor {} does not lie inside the file", name));
      }
      tensors_.emplace(name, std::move(tensor));
    }
  } catch (const nlohmann::json::exception& e) {
    throw malformed(path, e.what());
  }
}

SafetensorsFile::~SafetensorsFile() {
  if (data_ != nullptr) munmap(const_cast<char*>(data_), bytes_);
}

void SafetensorsFile::read(const Tensor& tensor, int64_t first, std::span<float> to) const {
  const size_t width = width_of(tensor.dtype);
  if (width == 0) {
    throw Error(ErrorKind::bad_input,
                fmt::format("{}: found dtype {}, expected F32, F16 or BF16", path_, tensor.dtype));
  }
  TRIREME_CHECK(first >= 0 && first + static_cast<int64_t>(to.size()) <= elements(tensor.shape));
  const char* from = data_ + data_begin_ + tensor.begin + static_cast<size_t>(first) * width;
  if (width == 4) {
    std::copy_n(from, to.size_bytes(), reinterpret_cast<char*>(to.data()));
    return;
  }
  for (size_t i = 0; i < to.size(); ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, from + 2 * i, sizeof bits);
    to[i] = tensor.dtype == "F16" ? half_to_float(bits) : brain_to_float(bits);
  }
}

}  // namespace trireme
