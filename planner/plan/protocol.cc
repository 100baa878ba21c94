#include "planner/plan/protocol.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "topology/base/check.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

constexpr size_t kHeaderBytes = 4;
// Messages are shallow. Walking a value recurses, so a stranger's depth must not become our stack.
constexpr int kDeepestMessage = 32;

Error refused(const std::string& why) {
  return Error(ErrorKind::failed, "control message refused: " + why);
}

uint32_t length_at(std::string_view bytes) {
  uint32_t length = 0;
  for (size_t i = 0; i < kHeaderBytes; ++i) {
    length = length << 8 | static_cast<unsigned char>(bytes[i]);
  }
  return length;
}

nlohmann::json parse_message(std::string_view body) {
  using Event = nlohmann::json::parse_event_t;
  const auto bound_depth = [](int depth, Event, nlohmann::json&) {
    if (depth > kDeepestMessage) {
      throw refused(fmt::format("it nests deeper than {}", kDeepestMessage));
    }
    return true;
  };
  nlohmann::json message;
  try {
    message = nlohmann::json::parse(body, bound_depth);
  } catch (const nlohmann::json::exception& e) {
    throw refused(fmt::format("not JSON ({})", e.what()));
  }
  if (!message.is_object()) throw refused("not a JSON object");
  const auto type = message.find("type");
  if (type == message.end() || !type->is_string()) throw refused("no string \"type\"");
  return message;
}

}  // namespace

std::string encode_frame(const nlohmann::json& message) {
  // Log lines travel in messages and may hold any bytes: what is not UTF-8 is replaced, never a
  // reason to fail.
  const auto body = message.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  TRIREME_CHECK(body.size() <= kMaxFrameBytes);
  const auto length = static_cast<uint32_t>(body.size());
  std::string frame;
  frame.reserve(kHeaderBytes + body.size());
  for (int shift = 24; shift >= 0; shift -= 8) frame += static_cast<char>(length >> shift & 0xff);
  return frame + body;
}

void FrameReader::append(std::string_view bytes) {
  // What was read is dropped once it is the larger part, so that a busy connection copies each byte
  // about once.
  if (consumed_ > buffer_.size() / 2) {
    buffer_.erase(0, consumed_);
    consumed_ = 0;
  }
  buffer_ += bytes;
}

std::optional<nlohmann::json> FrameReader::next() {
  const auto waiting = std::string_view(buffer_).substr(consumed_);
  if (waiting.size() < kHeaderBytes) return std::nullopt;
  const uint32_t length = length_at(waiting);
  if (length > limit_) {
    throw refused(fmt::format("a frame of {} bytes, at most {} are allowed", length, limit_));
  }
  if (waiting.size() - kHeaderBytes < length) return std::nullopt;
  consumed_ += kHeaderBytes + length;
  return parse_message(waiting.substr(kHeaderBytes, length));
}

}  // namespace trireme
