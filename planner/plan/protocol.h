#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace trireme {

// The control protocol as values: what controller, agents and ranks say to each other, and how a
// message becomes bytes. Sockets, clocks and processes live elsewhere (launcher/,
// runtime/control/).
//
// A frame is a 4-byte big-endian length followed by that many bytes of one JSON object with a
// string "type". Frames above the limit are refused before they are read, so no stranger makes a
// peer allocate.
inline constexpr uint32_t kMaxFrameBytes = 16 * 1024 * 1024;
// Of a rank, whose messages an agent wraps in its own: they may grow as they are written anew.
inline constexpr uint32_t kMaxRankFrameBytes = kMaxFrameBytes / 4;
// Before a peer has proved that it knows the run's secret it may send no more than this per frame.
inline constexpr uint32_t kMaxGreetingBytes = 1024;
inline constexpr int kProtocolVersion = 1;

// The frame of a message. Checks that it is within kMaxFrameBytes.
std::string encode_frame(const nlohmann::json& message);

// Takes bytes as they come and gives back whole messages. Not thread-safe.
class FrameReader {
 public:
  explicit FrameReader(uint32_t limit = kMaxFrameBytes) : limit_(limit) {}
  void set_limit(uint32_t limit) { limit_ = limit; }
  void append(std::string_view bytes);
  // The next whole message, or nothing until more bytes come. Throws Error(failed) on an oversized
  // frame, on bytes that are not a JSON object and on an object without a string "type"; the
  // connection is then useless.
  std::optional<nlohmann::json> next();

 private:
  uint32_t limit_;
  std::string buffer_;
  size_t consumed_ = 0;
};

// Rank <-> agent, over a socket pair that the rank inherits as descriptor kControlDescriptor.
//
//   rank to agent
//     {"type":"hello", "rank":, "pid":, "version":}
//     {"type":"set",   "key":, "value":}                     value: text; binary values travel as
//     hex
//     {"type":"get",   "id":, "key":, "timeout_s":}          answered by "value" once the key is
//     set
//     {"type":"alive"}                                       every kHeartbeatSeconds, from a thread
//     of its own
//     {"type":"started"}                                     the rank enters its first step
//     {"type":"step",  "metrics":{...}}                      from one rank of the run: a line of
//     metrics.jsonl
//     {"type":"busy",  "step":, "seconds":, "window":}       each rank and step: seconds in ops,
//     first op begin to last op end
//     {"type":"checkpoint", "step":, "path":}                from rank 0, once the checkpoint is
//     durable
//     {"type":"note",  "text":}                              what the user should know
//     {"type":"failed","kind":"peer_lost"|"failed"|..., "message":, "peer":}   the last word before
//     exiting with an error; "peer": the rank that this one lost, where it is known
//     {"type":"done",  "stopped":bool, "step":, "summary":{...}}      all steps done, or stopped
//     early on request
//   agent to rank
//     {"type":"value", "id":, "value":}   or {"type":"value", "id":, "error":"timed out ..."}
//     {"type":"stop"}                     finish the current step, save, exit 0
inline constexpr int kControlDescriptor = 3;
// What a rank is told by its environment: the checkpoint to go on from, empty for none, and the
// name or address of its node by which other ranks reach it.
inline constexpr const char* kResumeVariable = "TRIREME_RESUME";
inline constexpr const char* kListenVariable = "TRIREME_LISTEN";
// The status page (planner/plan/status_page.h) is inherited as this descriptor.
inline constexpr int kStatusDescriptor = 4;
inline constexpr double kHeartbeatSeconds = 1.0;
inline constexpr double kSuspectSeconds = 3.0;
inline constexpr double kDeadSeconds = 10.0;

}  // namespace trireme
