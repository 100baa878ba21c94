#include "planner/drawing/chrome_trace.h"

#include <fmt/format.h>

namespace trireme {

std::string draw_chrome_trace(const Timeline& timeline) {
  std::string json = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[";
  const char* separator = "\n";
  for (size_t rank = 0; rank < timeline.schedule->ranks.size(); ++rank) {
    json += fmt::format(
        "{}{{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":0,\"tid\":{},"
        "\"args\":{{\"name\":\"pipeline rank {}\"}}}}",
        separator, rank, rank);
    separator = ",\n";
    for (size_t i = 0; i < timeline.schedule->ranks[rank].size(); ++i) {
      const Op& op = timeline.schedule->ranks[rank][i];
      const OpTimes& times = (*timeline.times)[rank][i];
      json += fmt::format(
          ",\n{{\"name\":\"{}\",\"cat\":\"{}\",\"ph\":\"X\",\"pid\":0,\"tid\":{},\"ts\":{:.3f},"
          "\"dur\":{:.3f},\"args\":{{\"stage\":{},\"micro_batch\":{}}}}}",
          to_string(op), name_of(op.kind), rank, times.start * 1e6, (times.end - times.start) * 1e6,
          op.stage, op.micro_batch);
    }
  }
  return json + "\n]}\n";
}

}  // namespace trireme
