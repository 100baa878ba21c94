#include "runtime/comm/gloo_transport.h"

#include <fmt/format.h>
#include <gloo/common/error.h>
#include <gloo/transport/context.h>
#include <gloo/transport/pair.h>
#include <gloo/transport/tcp/device.h>
#include <gloo/transport/unbound_buffer.h>
#include <netdb.h>
#include <sched.h>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <sstream>
#include <thread>

#include "topology/base/check.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

using Buffer = gloo::transport::UnboundBuffer;

PeerLost lost(Rank peer, const std::exception& e) {
  return {peer, fmt::format("lost r{}: gloo: {}", peer.value, e.what())};
}

// Threads started while this lives do not preempt others when they wake. Gloo's event loop spins on
// a lock that a rank's own thread may hold: woken on that thread's core it would keep it from
// letting go for a whole scheduler tick, 4 ms for a message of a few microseconds.
class PoliteThreads {
 public:
  PoliteThreads() : before_(sched_getscheduler(0)) {
    if (before_ == SCHED_OTHER) set(SCHED_BATCH);
  }
  ~PoliteThreads() {
    if (before_ == SCHED_OTHER) set(SCHED_OTHER);
  }
  PoliteThreads(const PoliteThreads&) = delete;
  PoliteThreads& operator=(const PoliteThreads&) = delete;

 private:
  static void set(int policy) {
    const sched_param priority{};
    sched_setscheduler(0, policy, &priority);
  }

  int before_;  // another than the usual one is somebody's choice
};

// Gloo takes it for granted that there is an address of that name.
void require_address(const std::string& host) {
  addrinfo* found = nullptr;
  const int failure = getaddrinfo(host.c_str(), nullptr, nullptr, &found);
  if (failure != 0) {
    throw Error(ErrorKind::failed,
                fmt::format("cannot listen at \"{}\": {}", host, gai_strerror(failure)));
  }
  freeaddrinfo(found);
}

// Where a rank listens for each of its peers, as text: "peer:hex peer:hex ". Bytes travel as hex.
class Addresses {
 public:
  void add(Rank peer, const std::vector<char>& address) {
    text_ += fmt::format("{}:", peer.value);
    for (const char byte : address) text_ += fmt::format("{:02x}", static_cast<uint8_t>(byte));
    text_ += ' ';
  }
  const std::string& text() const { return text_; }

  // What `text` says about `peer`; empty when it says nothing.
  static std::vector<char> find(const std::string& text, Rank peer) {
    std::istringstream words(text);
    const std::string wanted = fmt::format("{}:", peer.value);
    std::vector<char> address;
    for (std::string word; words >> word;) {
      if (!word.starts_with(wanted)) continue;
      for (size_t i = wanted.size(); i + 1 < word.size(); i += 2)
        address.push_back(static_cast<char>(std::stoi(word.substr(i, 2), nullptr, 16)));
    }
    return address;
  }

 private:
  std::string text_;
};

// Waits for sends in the order they were made and drops their memory: Gloo can be waited for but
// not asked. The destructor waits for the rest.
class SendKeeper {
 public:
  explicit SendKeeper(std::chrono::milliseconds patience)
      : patience_(patience), thread_([this] { run(); }) {}
  ~SendKeeper() {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }

  void keep(Rank to, std::unique_ptr<Buffer> buffer, std::shared_ptr<const void> memory) {
    {
      const std::lock_guard lock(mutex_);
      if (failure_ != nullptr) std::rethrow_exception(failure_);
      sends_.push_back({to, std::move(memory), std::move(buffer)});
    }
    wake_.notify_all();
  }

 private:
  struct Send {
    Rank to;
    std::shared_ptr<const void> memory;
    std::unique_ptr<Buffer> buffer;
  };

  void run() {
    std::unique_lock lock(mutex_);
    while (true) {
      wake_.wait(lock, [this] { return closing_ || !sends_.empty(); });
      if (sends_.empty()) return;
      Send send = std::move(sends_.front());
      sends_.pop_front();
      lock.unlock();
      std::exception_ptr failure;
      try {
        send.buffer->waitSend(patience_);
      } catch (const std::exception& e) {
        failure = std::make_exception_ptr(lost(send.to, e));
      }
      lock.lock();
      if (failure != nullptr) {
        failure_ = failure;
        sends_.clear();
      }
    }
  }

  std::chrono::milliseconds patience_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Send> sends_;
  std::exception_ptr failure_;
  bool closing_ = false;
  std::thread thread_;
};

class GlooTransport final : public Transport {
 public:
  GlooTransport(std::shared_ptr<gloo::transport::Context> context,
                std::chrono::milliseconds patience)
      : context_(std::move(context)), patience_(patience), keeper_(patience) {}

  Rank rank() const override { return Rank(context_->rank); }
  int size() const override { return context_->size; }

  void send(Rank to, uint64_t tag, std::span<const float> data,
            std::shared_ptr<const void> keep) override {
    try {
      auto buffer =
          context_->createUnboundBuffer(const_cast<float*>(data.data()), data.size_bytes());
      buffer->send(to.value, tag);
      keeper_.keep(to, std::move(buffer), std::move(keep));
    } catch (const gloo::Exception& e) {
      throw lost(to, e);
    }
  }

  std::unique_ptr<Work> receive(Rank from, uint64_t tag, std::span<float> into) override {
    struct Receive final : Work {
      void wait() override {
        try {
          buffer->waitRecv(patience);
        } catch (const gloo::Exception& e) {
          throw lost(from, e);
        }
      }
      Rank from;
      std::unique_ptr<Buffer> buffer;
      std::chrono::milliseconds patience;
    };
    auto work = std::make_unique<Receive>();
    work->from = from;
    work->patience = patience_;
    try {
      work->buffer = context_->createUnboundBuffer(into.data(), into.size_bytes());
      work->buffer->recv(from.value, tag);
    } catch (const gloo::Exception& e) {
      throw lost(from, e);
    }
    return work;
  }

 private:
  std::shared_ptr<gloo::transport::Context> context_;
  std::chrono::milliseconds patience_;
  SendKeeper keeper_;
};

}  // namespace

std::unique_ptr<Transport> connect_gloo(Rank rank, int size, const std::vector<Rank>& peers,
                                        const std::string& host, const Rendezvous& rendezvous,
                                        std::chrono::milliseconds patience) {
  require_address(host);
  gloo::transport::tcp::attr attributes;
  attributes.hostname = host;
  const PoliteThreads polite;
  const auto key = [](Rank r) { return fmt::format("gloo/{}", r.value); };
  std::shared_ptr<gloo::transport::Context> context;
  Addresses own;
  try {
    context = gloo::transport::tcp::CreateDevice(attributes)->createContext(rank.value, size);
    context->setTimeout(patience);
    for (const Rank peer : peers) own.add(peer, context->createPair(peer.value)->address().bytes());
  } catch (const gloo::Exception& e) {
    throw Error(ErrorKind::failed, fmt::format("cannot listen at {}: {}", host, e.what()));
  }
  rendezvous.set(key(rank), own.text());
  for (const Rank peer : peers) {
    const auto address = Addresses::find(rendezvous.get(key(peer)), rank);
    TRIREME_CHECK(!address.empty());
    try {
      context->getPair(peer.value)->connect(address);
    } catch (const gloo::Exception& e) {
      throw lost(peer, e);
    }
  }
  return std::make_unique<GlooTransport>(std::move(context), patience);
}

}  // namespace trireme
