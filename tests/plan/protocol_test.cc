#include "planner/plan/protocol.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "topology/base/error.h"

namespace trireme {
namespace {

using nlohmann::json;

std::string frame_of(const std::string& body) {
  const auto n = static_cast<uint32_t>(body.size());
  return {static_cast<char>(n >> 24), static_cast<char>(n >> 16 & 255),
          static_cast<char>(n >> 8 & 255), static_cast<char>(n & 255)};
}

std::string refusal(const std::string& bytes, uint32_t limit = kMaxFrameBytes) {
  FrameReader reader(limit);
  reader.append(bytes);
  try {
    return reader.next() ? "a message" : "wants more";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::failed);
    return e.what();
  }
}

std::string refusal_of_body(const std::string& body) {
  return refusal(frame_of(body) + body);
}

TEST(Protocol, TheLengthComesFirstMostSignificantByteFirst) {
  EXPECT_EQ(encode_frame({{"type", "stop"}}), std::string("\0\0\0\x0f", 4) + R"({"type":"stop"})");
}

// Every way to cut a stream of three messages in two, and the whole stream byte by byte.
TEST(Protocol, MessagesComeWholeHoweverBytesArrive) {
  const std::vector<json> messages = {
      {{"type", "a"}}, {{"type", "b"}, {"value", "x\"y"}}, {{"type", "c"}, {"n", 1.5}}};
  std::string stream;
  for (const auto& message : messages) stream += encode_frame(message);
  const auto drain = [](FrameReader& reader, std::vector<json>& into) {
    while (auto message = reader.next()) into.push_back(*message);
  };
  for (size_t cut = 0; cut <= stream.size(); ++cut) {
    FrameReader reader;
    std::vector<json> received;
    for (const auto& part : {stream.substr(0, cut), stream.substr(cut)}) {
      reader.append(part);
      drain(reader, received);
    }
    EXPECT_EQ(received, messages) << cut;
  }
  FrameReader reader;
  std::vector<json> received;
  for (const char byte : stream) {
    reader.append({&byte, 1});
    drain(reader, received);
  }
  EXPECT_EQ(received, messages);
}

TEST(Protocol, OversizedFramesAreRefusedBeforeTheirBodyComes) {
  EXPECT_EQ(refusal(std::string("\xff\xff\xff\xff", 4)),
            "control message refused: a frame of 4294967295 bytes, at most 16777216 are allowed");
  EXPECT_EQ(refusal(std::string("\0\0\4\1", 4), kMaxGreetingBytes),
            "control message refused: a frame of 1025 bytes, at most 1024 are allowed");
  EXPECT_EQ(refusal(std::string("\0\0\4\0", 4), kMaxGreetingBytes), "wants more");
}

TEST(Protocol, OnlyObjectsWithATypePass) {
  EXPECT_EQ(refusal_of_body("[]"), "control message refused: not a JSON object");
  EXPECT_EQ(refusal_of_body("{}"), "control message refused: no string \"type\"");
  EXPECT_EQ(refusal_of_body("{\"type\":1}"), "control message refused: no string \"type\"");
  EXPECT_EQ(refusal_of_body("").substr(0, 34), "control message refused: not JSON ");
  EXPECT_EQ(refusal_of_body("{\"type\":\"a\"} x").substr(0, 34),
            "control message refused: not JSON ");
  EXPECT_EQ(refusal_of_body("{\"type\":\"\xff\"}").substr(0, 34),
            "control message refused: not JSON ");
}

TEST(Protocol, DeepNestingIsRefused) {
  const std::string deep =
      "{\"type\":\"a\",\"x\":" + std::string(1'000'000, '[') + std::string(1'000'000, ']') + "}";
  EXPECT_EQ(refusal_of_body(deep), "control message refused: it nests deeper than 32");
}

TEST(Protocol, BytesThatAreNotTextAreReplaced) {
  FrameReader reader;
  reader.append(encode_frame({{"type", "log"},
                              {"line",
                               "a\xff"
                               "b"}}));
  EXPECT_EQ(reader.next()->at("line"),
            "a\xef\xbf\xbd"
            "b");
}

}  // namespace
}  // namespace trireme
