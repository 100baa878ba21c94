#include "launcher/events.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <chrono>

namespace trireme {

void EventLog::record(nlohmann::json event) {
  const auto now = std::chrono::system_clock::now();
  const auto milliseconds =
      std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count();
  event["time"] = static_cast<double>(milliseconds) / 1000;
  event["date"] =
      fmt::format("{:%FT%T}.{:03}Z", fmt::gmtime(std::chrono::system_clock::to_time_t(now)),
                  milliseconds % 1000);
  file_.append(event.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
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
