#include "runtime/data/token_source.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <glob.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <algorithm>
#include <cstring>

#include "runtime/model/random.h"

namespace trireme {
namespace {

constexpr size_t kLlmcHeaderBytes = 1024;
constexpr int32_t kLlmcMagicGpt2 = 20240520;   // u16 tokens
constexpr int32_t kLlmcMagicLlama = 20240801;  // u32 tokens

Error bad_data(const std::string& path, const std::string& what) {
  return {ErrorKind::bad_input, fmt::format("{}: {}", path, what)};
}

bool is_file(const std::string& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode);
}

// A file of that name, or regular files that match the pattern, sorted. Symbolic links that lead to
// a file already in the list are left out, so that no text counts twice.
std::vector<std::string> matching_files(const std::string& pattern) {
  if (is_file(pattern)) return {pattern};
  glob_t found{};
  const int status = glob(pattern.c_str(), 0, nullptr, &found);
  std::vector<std::string> files;
  std::vector<std::pair<dev_t, ino_t>> seen;
  for (size_t i = 0; status == 0 && i < found.gl_pathc; ++i) {
    struct stat info {};
    if (stat(found.gl_pathv[i], &info) != 0 || !S_ISREG(info.st_mode)) continue;
    const auto identity = std::make_pair(info.st_dev, info.st_ino);
    if (std::find(seen.begin(), seen.end(), identity) != seen.end()) continue;
    seen.push_back(identity);
    files.emplace_back(found.gl_pathv[i]);
  }
  globfree(&found);
  return files;
}

}  // namespace

// One file, mapped read-only: ranks of one machine share its pages.
class TokenSource::File {
 public:
  File(const std::string& path, DataFormat format) : path_(path) {
    const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat info {};
    if (descriptor < 0 || fstat(descriptor, &info) != 0) {
      if (descriptor >= 0) close(descriptor);
      throw bad_data(path, fmt::format("cannot be read: {}", std::strerror(errno)));
    }
    bytes_ = static_cast<size_t>(info.st_size);
    if (bytes_ > 0) {
      void* mapped = mmap(nullptr, bytes_, PROT_READ, MAP_PRIVATE, descriptor, 0);
      if (mapped != MAP_FAILED) data_ = static_cast<const char*>(mapped);
    }
    close(descriptor);
    if (bytes_ > 0 && data_ == nullptr) throw bad_data(path, "cannot be mapped into memory");
    read_header(path, format);
  }
  ~File() {
    if (data_ != nullptr) munmap(const_cast<char*>(data_), bytes_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const std::string& path() const { return path_; }
  int64_t size() const { return static_cast<int64_t>((bytes_ - offset_) / width_); }
  // Goes on from `hash`: FNV-1a, 64 bits, over the size and the first and last bytes.
  uint64_t hash_ends(uint64_t hash) const {
    constexpr size_t kEnd = 4096;
    const auto add = [&](const void* from, size_t count) {
      for (size_t i = 0; i < count; ++i) {
        hash = (hash ^ static_cast<const unsigned char*>(from)[i]) * 0x100000001b3U;
      }
    };
    const size_t end = std::min(kEnd, bytes_);
    add(&bytes_, sizeof bytes_);
    add(data_, end);
    add(data_ + bytes_ - end, end);
    return hash;
  }
  uint32_t at(int64_t i) const {
    const char* from = data_ + offset_ + static_cast<size_t>(i) * width_;
    if (width_ == 1) return static_cast<unsigned char>(*from);
    uint32_t wide = 0;
    std::memcpy(&wide, from, width_);
    return wide;
  }

 private:
  void read_header(const std::string& path, DataFormat format) {
    if (format == DataFormat::u16) width_ = 2;
    if (format == DataFormat::u32) width_ = 4;
    if (format == DataFormat::llmc) {
      int32_t magic = 0;
      if (bytes_ >= kLlmcHeaderBytes) std::memcpy(&magic, data_, sizeof magic);
      if (magic != kLlmcMagicGpt2 && magic != kLlmcMagicLlama) {
        throw bad_data(
            path, fmt::format("found first word {}, expected an llm.c token file ({} or {})", magic,
                              kLlmcMagicGpt2, kLlmcMagicLlama));
      }
      offset_ = kLlmcHeaderBytes;
      width_ = magic == kLlmcMagicGpt2 ? 2 : 4;
      int32_t promised = 0;
      std::memcpy(&promised, data_ + 2 * sizeof promised, sizeof promised);
      if (static_cast<size_t>(promised) * width_ != bytes_ - offset_) {
        throw bad_data(path, fmt::format("its header promises {} tokens, found {} bytes of them",
                                         promised, bytes_ - offset_));
      }
    }
    if ((bytes_ - offset_) % width_ != 0) {
      throw bad_data(path, fmt::format("found {} bytes of tokens, expected a multiple of {}",
                                       bytes_ - offset_, width_));
    }
  }

  std::string path_;
  const char* data_ = nullptr;
  size_t bytes_ = 0;
  size_t offset_ = 0;
  size_t width_ = 1;
};

TokenSource::TokenSource(const Data& data, int sequence, int vocabulary, uint64_t seed)
    : sequence_(sequence), vocabulary_(vocabulary), seed_(seed), order_(data.order) {
  uint64_t hash = 0xcbf29ce484222325U;
  for (const auto& path : matching_files(data.path)) {
    files_.push_back(std::make_unique<File>(path, data.format));
    tokens_ += files_.back()->size();
    ends_.push_back(tokens_);
    hash = files_.back()->hash_ends(hash);
  }
  identity_ = {tokens_, static_cast<int64_t>(hash >> 11)};
  if (files_.empty()) {
    const bool there = access(data.path.c_str(), F_OK) == 0;
    throw bad_data(data.path, there ? "data.path is not a file; expected one, or a pattern of some"
                                    : "no file matches data.path");
  }
  if (tokens_ <= sequence) {
    throw bad_data(data.path,
                   fmt::format("found {} tokens in all, expected at least {} (model.sequence + 1)",
                               tokens_, sequence + 1));
  }
}

TokenSource::~TokenSource() = default;

int32_t TokenSource::token_at(size_t file, int64_t position) const {
  const int64_t in_file = position - ends_[file] + files_[file]->size();
  const uint32_t token = files_[file]->at(in_file);
  if (token < static_cast<uint32_t>(vocabulary_)) return static_cast<int32_t>(token);
  throw bad_data(files_[file]->path(),
                 fmt::format("found token {} as number {}, expected tokens below model.vocab = {}",
                             token, in_file, vocabulary_));
}

int64_t TokenSource::start_of(uint64_t k) const {
  const auto starts = static_cast<uint64_t>(tokens_ - sequence_);
  if (order_ == SampleOrder::sequential) {
    return static_cast<int64_t>(k % starts * static_cast<uint64_t>(sequence_) % starts);
  }
  return static_cast<int64_t>(NamedRandom(seed_, "data.order").bits(k) % starts);
}

void TokenSource::sample(uint64_t k, int32_t* inputs, int32_t* targets) const {
  const int64_t start = start_of(k);
  auto file =
      static_cast<size_t>(std::upper_bound(ends_.begin(), ends_.end(), start) - ends_.begin());
  for (int i = 0; i <= sequence_; ++i) {
    const int64_t position = start + i;
    while (position >= ends_[file]) ++file;
    const int32_t value = token_at(file, position);
    if (i < sequence_) inputs[i] = value;
    if (i > 0) targets[i - 1] = value;
  }
}

}  // namespace trireme
