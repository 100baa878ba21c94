#include "launcher/framed_socket.h"

#include <array>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <deque>
#include <utility>

#include "planner/plan/protocol.h"

namespace trireme {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

int family_of(int descriptor) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  getsockname(descriptor, reinterpret_cast<sockaddr*>(&address), &size);
  return address.ss_family;
}

}  // namespace

// Shared with the pending operations, which may outlive the owner.
struct FramedSocket::Core : std::enable_shared_from_this<Core> {
  // Draining: what is queued is still sent, and nothing is heard any more.
  enum class State { open, draining, closed };

  Core(asio::io_context& io, int descriptor, uint32_t limit)
      : socket(io, {family_of(descriptor), 0}, descriptor), frames(limit) {}

  void read() {
    socket.async_read_some(asio::buffer(chunk), [self = shared_from_this()](
                                                    error_code e, size_t n) { self->take(e, n); });
  }

  void take(error_code e, size_t n) {
    if (state != State::open) {
      return;
    }
    if (e) {
      end({e == asio::error::eof ? "it closed the connection" : e.message()});
      return;
    }
    try {
      frames.append({chunk.data(), n});
      while (state == State::open) {
        const auto message = frames.next();
        if (!message) {
          break;
        }
        on_message(*message);
      }
    } catch (const std::exception& error) {
      end({error.what(), true});
    }
    if (state == State::open) {
      read();
    }
  }

  void write() {
    asio::async_write(socket, asio::buffer(unsent.front()),
                      [self = shared_from_this()](error_code e, size_t n) { self->wrote(e, n); });
  }

  void wrote(error_code e, size_t n) {
    unsent_bytes -= n;
    unsent.pop_front();
    if (e) {
      end({e.message()});
    } else if (!unsent.empty()) {
      write();
    } else if (state == State::draining) {
      close();
    }
  }

  void end(const End& how) {
    const OnEnd tell = on_end;
    const bool told = state == State::open;
    close();
    if (told && tell) {
      tell(how);
    }
  }

  void close() {
    state = State::closed;
    error_code ignored;
    socket.close(ignored);
  }

  asio::generic::stream_protocol::socket socket;
  FrameReader frames;
  OnMessage on_message;
  OnEnd on_end;
  std::array<char, 16384> chunk{};
  std::deque<std::string> unsent;
  size_t unsent_bytes = 0;
  State state = State::open;
};

FramedSocket::FramedSocket(asio::io_context& io, int descriptor, uint32_t frame_limit)
    : core_(std::make_shared<Core>(io, descriptor, frame_limit)) {}

FramedSocket::~FramedSocket() {
  if (core_ && core_->state == Core::State::open) {
    core_->close();
  }
}

FramedSocket::FramedSocket(FramedSocket&&) noexcept = default;

FramedSocket& FramedSocket::operator=(FramedSocket&& other) noexcept {
  std::swap(core_, other.core_);
  return *this;
}

void FramedSocket::start(OnMessage on_message, OnEnd on_end) {
  core_->on_message = std::move(on_message);
  core_->on_end = std::move(on_end);
  core_->read();
}

void FramedSocket::set_frame_limit(uint32_t bytes) {
  core_->frames.set_limit(bytes);
}

void FramedSocket::send(const nlohmann::json& message) {
  if (core_->state != Core::State::open) {
    return;
  }
  core_->unsent.push_back(encode_frame(message));
  core_->unsent_bytes += core_->unsent.back().size();
  if (core_->unsent_bytes > kMaxUnsentBytes) {
    asio::post(core_->socket.get_executor(),
               [core = core_] { core->end({"it does not read what it is sent"}); });
  } else if (core_->unsent.size() == 1) {
    core_->write();
  }
}

void FramedSocket::close() {
  core_->close();
}

void FramedSocket::close_when_sent() {
  core_->state = Core::State::draining;
  if (core_->unsent.empty()) {
    core_->close();
  }
}

}  // namespace trireme
