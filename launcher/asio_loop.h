#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <utility>

// What the event loops of controller and agent share. For their sources only: no other header
// includes it.
namespace trireme {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using Json = nlohmann::json;

// Calls a function when started and then at every tick, for as long as it lives.
class Ticker {
 public:
  static constexpr std::chrono::milliseconds kTick{50};

  Ticker(asio::io_context& io, std::function<void()> tick) : timer_(io), tick_(std::move(tick)) {}

  void start() {
    tick_();
    timer_.expires_after(kTick);
    timer_.async_wait([this](error_code e) {
      if (!e) {
        start();
      }
    });
  }

 private:
  asio::steady_timer timer_;
  std::function<void()> tick_;
};

// Messages are small and answers are waited for.
inline void send_at_once(tcp::socket& socket) {
  error_code ignored;
  socket.set_option(tcp::no_delay(true), ignored);
}

}  // namespace trireme
