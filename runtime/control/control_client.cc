#include "runtime/control/control_client.h"
#include "topology/base/say.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

namespace trireme {
namespace {

using Json = nlohmann::json;

// The agent answers a timed-out get itself; only when not even that comes does the rank give up on
// its own.
constexpr std::chrono::seconds kAnswerSlack{5};

const char* name_of(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::bad_input:
      return "bad_input";
    case ErrorKind::no_layout:
      return "no_layout";
    case ErrorKind::failed:
      return "failed";
    case ErrorKind::peer_lost:
      return "peer_lost";
    case ErrorKind::unavailable:
      return "unavailable";
  }
  return "failed";
}

Error not_inherited(int descriptor, const char* what) {
  return {ErrorKind::bad_input,
          fmt::format(
              "descriptor {} is not {}: trireme-rank is started by `trireme run`, never by hand",
              descriptor, what)};
}

void check_socket(int descriptor) {
  int type = 0;
  socklen_t size = sizeof type;
  if (getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_STREAM) {
    throw not_inherited(descriptor, "the control socket");
  }
}

StatusPage* map_status_page(int descriptor) {
  struct stat info {};
  if (fstat(descriptor, &info) != 0 || info.st_size < static_cast<off_t>(sizeof(StatusPage))) {
    throw not_inherited(descriptor, "the status page");
  }
  void* page = mmap(nullptr, sizeof(StatusPage), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  if (page == MAP_FAILED) {
    throw not_inherited(descriptor, "a status page that can be mapped");
  }
  close(descriptor);
  return static_cast<StatusPage*>(page);
}

[[noreturn]] void leave_without_agent(const char* why) {
  say(stderr, "trireme-rank: {}; ending this rank\n", why);
  std::fflush(stderr);
  _exit(1);
}

}  // namespace

ControlClient::ControlClient(Rank rank, int control_descriptor, int status_descriptor)
    : socket_(control_descriptor) {
  check_socket(control_descriptor);
  status_ = map_status_page(status_descriptor);
  fcntl(socket_, F_SETFD, FD_CLOEXEC);
  send({{"type", "hello"}, {"rank", rank.value}, {"pid", getpid()}, {"version", kProtocolVersion}});
  reader_ = std::jthread([this] { read_until_end(); });
  heart_ = std::jthread([this](const std::stop_token& stop) { beat(stop); });
}

ControlClient::~ControlClient() {
  closing_ = true;
  heart_.request_stop();
  heart_.join();
  shutdown(socket_, SHUT_RDWR);  // wakes the reader
  reader_.join();
  close(socket_);
  munmap(status_, sizeof(StatusPage));
}

void ControlClient::set(const std::string& key, const std::string& value) {
  send({{"type", "set"}, {"key", key}, {"value", value}});
}

std::string ControlClient::get(const std::string& key, std::chrono::milliseconds timeout) {
  std::unique_lock lock(answer_mutex_);
  const int64_t id = next_id_++;
  lock.unlock();
  const double seconds = std::chrono::duration<double>(timeout).count();
  send({{"type", "get"}, {"id", id}, {"key", key}, {"timeout_s", seconds}});
  lock.lock();
  if (!answered_.wait_for(lock, timeout + kAnswerSlack, [&] { return answers_.contains(id); })) {
    throw Error(ErrorKind::peer_lost,
                fmt::format("no answer about key \"{}\" within {} s", key, seconds));
  }
  const Json answer = answers_.extract(id).mapped();
  if (answer.contains("error")) {
    throw Error(ErrorKind::peer_lost,
                fmt::format("key \"{}\": {}", key, answer["error"].get<std::string>()));
  }
  return answer.at("value").get<std::string>();
}

void ControlClient::started() {
  send({{"type", "started"}});
}

void ControlClient::report_step(const Json& metrics) {
  send({{"type", "step"}, {"metrics", metrics}});
}

void ControlClient::report_busy(int step, double seconds, double window) {
  send({{"type", "busy"}, {"step", step}, {"seconds", seconds}, {"window", window}});
}

void ControlClient::report_checkpoint(int step, const std::string& path) {
  send({{"type", "checkpoint"}, {"step", step}, {"path", path}});
}

void ControlClient::note(const std::string& text) {
  send({{"type", "note"}, {"text", text}});
}

void ControlClient::failed(const Error& error, std::optional<Rank> lost) {
  Json message = {{"type", "failed"}, {"kind", name_of(error.kind())}, {"message", error.what()}};
  if (lost) {
    message["peer"] = lost->value;
  }
  send(message);
}

void ControlClient::done(bool stopped, int step, const Json& summary) {
  send({{"type", "done"}, {"stopped", stopped}, {"step", step}, {"summary", summary}});
}

void ControlClient::send(const Json& message) {
  const std::string frame = encode_frame(message);
  const std::scoped_lock lock(send_mutex_);
  for (size_t sent = 0; sent < frame.size();) {
    const ssize_t n = ::send(socket_, frame.data() + sent, frame.size() - sent, MSG_NOSIGNAL);
    if (n >= 0) {
      sent += static_cast<size_t>(n);
    } else if (errno != EINTR) {
      leave_without_agent("the agent of this node is gone");
    }
  }
}

void ControlClient::read_until_end() {
  FrameReader frames;
  std::array<char, 65536> chunk{};
  for (;;) {
    const ssize_t n = recv(socket_, chunk.data(), chunk.size(), 0);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      if (closing_) {
        return;
      }
      leave_without_agent("the agent of this node is gone");
    }
    try {
      frames.append({chunk.data(), static_cast<size_t>(n)});
      while (const auto message = frames.next()) {
        handle(*message);
      }
    } catch (const std::exception& error) {
      leave_without_agent(error.what());
    }
  }
}

void ControlClient::handle(const Json& message) {
  const std::string type = message.at("type");
  if (type == "stop") {
    stop_requested_ = true;
  } else if (type == "value") {
    const std::scoped_lock lock(answer_mutex_);
    answers_[message.at("id").get<int64_t>()] = message;
    answered_.notify_all();
  }
}

void ControlClient::beat(const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any wake;
  const std::chrono::duration<double> pause(kHeartbeatSeconds);
  std::unique_lock lock(mutex);
  while (!stop.stop_requested()) {
    send({{"type", "alive"}});
    wake.wait_for(lock, stop, pause, [] { return false; });
  }
}

}  // namespace trireme
