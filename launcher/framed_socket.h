#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

namespace boost::asio {
class io_context;
}

namespace trireme {

// Messages over a connected stream socket (TCP or Unix), framed as planner/plan/protocol.h says.
// All functions and callbacks run on the thread of the io_context.
class FramedSocket {
 public:
  using OnMessage = std::function<void(const nlohmann::json&)>;
  // How a connection has ended, and whether it was the peer's nonsense that ended it.
  struct End {
    std::string why;
    bool nonsense = false;
  };
  // Told once. Never after close().
  using OnEnd = std::function<void(const End& end)>;

  // Owns `descriptor` from here on.
  FramedSocket(boost::asio::io_context& io, int descriptor, uint32_t frame_limit);
  ~FramedSocket();
  FramedSocket(FramedSocket&&) noexcept;
  FramedSocket& operator=(FramedSocket&&) noexcept;

  // A callback may destroy or close this socket.
  void start(OnMessage on_message, OnEnd on_end);
  void set_frame_limit(uint32_t bytes);
  // Never blocks. A peer that does not read until kMaxUnsentBytes wait is given up.
  void send(const nlohmann::json& message);
  // Silently: no callback comes after this.
  void close();
  // Sends what is queued, then closes; no callback comes after this.
  void close_when_sent();

  static constexpr size_t kMaxUnsentBytes = 256 << 20;

 private:
  struct Core;
  std::shared_ptr<Core> core_;
};

}  // namespace trireme
