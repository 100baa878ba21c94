#include "runtime/train/trace.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>
#include <string_view>

#include "topology/base/say.h"

namespace trireme {
namespace {

const char* category_of(Trace::Kind kind) {
  switch (kind) {
    case Trace::Kind::op:
      return "op";
    case Trace::Kind::pair:
      return "pair";
    case Trace::Kind::send:
      return "send";
    case Trace::Kind::receive:
      return "receive";
    case Trace::Kind::reduce:
      return "reduce";
    case Trace::Kind::optimizer:
      return "optimizer";
    case Trace::Kind::checkpoint:
      break;
  }
  return "checkpoint";
}

// What every whole file ends with, and the next step overwrites.
constexpr std::string_view kEnd = "]\n";

bool write_at(int file, std::string_view text, int64_t at) {
  while (!text.empty()) {
    const ssize_t written = pwrite(file, text.data(), text.size(), at);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    text.remove_prefix(static_cast<size_t>(written));
    at += written;
  }
  return true;
}

int64_t size_of(int file) {
  struct stat info {};
  return fstat(file, &info) == 0 ? info.st_size : 0;
}

}  // namespace

double Trace::now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double Trace::processor_time() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

Trace::Trace(std::string path, int rank, const std::string& rank_name, int64_t most_bytes)
    : path_(std::move(path)), most_bytes_(most_bytes), rank_(rank) {
  header_ =
      fmt::format(R"({{"ph":"M","pid":0,"tid":{},"name":"thread_name","args":{{"name":"{}"}}}})",
                  rank_, rank_name);
}

void Trace::begin_step(int step) {
  step_ = step;
  step_begin_ = now();
  step_cpu_ = processor_time();
  any_ = false;
  busy_ = 0;
  first_begin_ = 0;
  last_end_ = 0;
}

void Trace::add_op(const Op& op, std::optional<int> version, double begin, double end, double cpu) {
  if (!any_) first_begin_ = begin;
  any_ = true;
  busy_ += end - begin;
  last_end_ = end;
  auto arguments = fmt::format(R"(,"kind":"{}","stage":{},"micro_batch":{},"cpu_us":{:.3f})",
                               letter_of(op.kind), op.stage, op.micro_batch, cpu * 1e6);
  if (version) arguments += fmt::format(R"(,"version":{})", *version);
  append(to_string(op), "op", begin, end, arguments);
}

void Trace::add_peak(size_t bytes) {
  if (path_.empty()) return;
  if (!pending_.empty()) pending_ += ",\n";
  pending_ += fmt::format(
      R"({{"ph":"C","pid":0,"tid":{},"name":"peak memory","id":{},"ts":{:.3f},"args":{{"bytes":{}}}}})",
      rank_, rank_, now() * 1e6, bytes);
}

void Trace::add(Kind kind, const std::string& name, double begin, double end) {
  append(name, category_of(kind), begin, end, "");
}

void Trace::append(const std::string& name, const char* category, double begin, double end,
                   const std::string& arguments) {
  if (path_.empty()) return;
  if (!pending_.empty()) pending_ += ",\n";
  pending_ += fmt::format(
      R"({{"ph":"X","pid":0,"tid":{},"name":"{}","cat":"{}","ts":{:.3f},"dur":{:.3f},"args":{{"step":{}{}}}}})",
      rank_, name, category, begin * 1e6, (end - begin) * 1e6, step_, arguments);
}

void Trace::end_step() {
  if (path_.empty()) return;
  append(fmt::format("step {}", step_), "step", step_begin_, now(),
         fmt::format(R"(,"cpu_us":{:.3f})", (processor_time() - step_cpu_) * 1e6));
  const std::string failure = write_pending();
  pending_.clear();
  if (failure.empty() || lost_any_) return;
  lost_any_ = true;
  say(stderr, "{}: step {} is missing, and all others while this lasts: {}\n", path_, step_,
      failure);
}

// Why it could not be; the file is then what it was, as a full disk or a directory that somebody
// removed must not end the training.
std::string Trace::write_pending() {
  const int file = open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0) return std::strerror(errno);
  if (size_of(file) < length_) length_ = first_part_ = 0;  // somebody's new file
  if (length_ + static_cast<int64_t>(pending_.size()) > most_bytes_ && first_part_ > 0) {
    length_ = first_part_;
  }
  const bool fresh = length_ == 0;
  const int64_t at = fresh ? 0 : length_ - static_cast<int64_t>(kEnd.size());
  const std::string text =
      fmt::format("{}{}{}", fresh ? "[" + header_ + ",\n" : ",\n", pending_, kEnd);
  const bool written = write_at(file, text, at);
  const std::string failure = written ? "" : std::strerror(errno);
  if (written) {
    length_ = at + static_cast<int64_t>(text.size());
    if (first_part_ == 0 && length_ > most_bytes_ / 2) first_part_ = length_;
  } else if (!fresh) {
    write_at(file, kEnd, at);
  }
  const bool cut = ftruncate(file, length_) == 0;
  close(file);
  return !failure.empty() || cut ? failure : "cannot be cut to its length";
}

}  // namespace trireme
