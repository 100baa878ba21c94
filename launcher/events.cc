#include "launcher/events.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>

#include "topology/base/error.h"

namespace trireme {

EventLog::EventLog(const std::string& path)
    : file_(open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)) {
  if (file_ < 0) {
    throw Error(ErrorKind::failed, fmt::format("{}: {}", path, std::strerror(errno)));
  }
}

EventLog::~EventLog() {
  close(file_);
}

void EventLog::record(nlohmann::json event) {
  const auto now = std::chrono::system_clock::now();
  const auto milliseconds =
      std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count();
  event["time"] = static_cast<double>(milliseconds) / 1000;
  event["date"] =
      fmt::format("{:%FT%T}.{:03}Z", fmt::gmtime(std::chrono::system_clock::to_time_t(now)),
                  milliseconds % 1000);
  const std::string line =
      event.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  if (write(file_, line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
    ++lost_lines_;
  }
}

std::string printable(std::string text) {
  for (char& c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && c != '\t') || byte >= 0x7f) {
      c = '?';
    }
  }
  return text;
}

}  // namespace trireme
