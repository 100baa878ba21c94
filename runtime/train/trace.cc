#include "runtime/train/trace.h"

#include <fmt/format.h>
#include <chrono>
#include <cstdio>
#include <ctime>

#include "topology/base/error.h"

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

}  // namespace

double Trace::now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double Trace::processor_time() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

Trace::Trace(std::string path, int rank, const std::string& rank_name)
    : path_(std::move(path)), rank_(rank) {
  if (path_.empty()) return;
  pending_ =
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

// The closing bracket is overwritten by the next step, so the file is whole after every step.
void Trace::end_step() {
  if (path_.empty()) return;
  append(fmt::format("step {}", step_), "step", step_begin_, now(),
         fmt::format(R"(,"cpu_us":{:.3f})", (processor_time() - step_cpu_) * 1e6));
  std::FILE* file = std::fopen(path_.c_str(), "r+");
  const bool fresh = file == nullptr;
  if (fresh) file = std::fopen(path_.c_str(), "w");
  if (file == nullptr) throw Error(ErrorKind::failed, fmt::format("{}: cannot be written", path_));
  if (!fresh) std::fseek(file, -2, SEEK_END);
  const std::string text = fmt::format("{}{}]\n", fresh ? "[" : ",\n", pending_);
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  const bool closed = std::fclose(file) == 0;
  // A full disk must not end the training: the trace then lacks this step.
  if (!written || !closed)
    std::fprintf(stderr, "trace: %s: step %d is missing\n", path_.c_str(), step_);
  pending_.clear();
}

}  // namespace trireme
