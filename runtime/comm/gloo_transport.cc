#include "runtime/comm/gloo_transport.h"

#include <fmt/format.h>
#include <gloo/common/error.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/store.h>
#include <gloo/transport/tcp/device.h>
#include <gloo/transport/unbound_buffer.h>
#include <sched.h>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "topology/base/error.h"

namespace trireme {
namespace {

using Buffer = gloo::transport::UnboundBuffer;

Error lost(const std::exception& e) {
  return {ErrorKind::peer_lost, fmt::format("gloo: {}", e.what())};
}

// Threads started while this lives do not preempt others when they wake. Gloo's event loop spins on
// a lock that a rank's own thread may hold: woken on that thread's core it would keep it from
// letting go for a whole scheduler tick, 4 ms for a message of a few microseconds.
class PoliteThreads {
 public:
  PoliteThreads() { set(SCHED_BATCH); }
  ~PoliteThreads() { set(SCHED_OTHER); }
  PoliteThreads(const PoliteThreads&) = delete;
  PoliteThreads& operator=(const PoliteThreads&) = delete;

 private:
  static void set(int policy) {
    const sched_param priority{};
    sched_setscheduler(0, policy, &priority);
  }
};

// Gloo's store on top of ours; values are bytes, which travel as hex.
class Store final : public gloo::rendezvous::Store {
 public:
  explicit Store(const Rendezvous& rendezvous) : rendezvous_(rendezvous) {}

  void set(const std::string& key, const std::vector<char>& data) override {
    std::string hex;
    for (const char byte : data) hex += fmt::format("{:02x}", static_cast<unsigned char>(byte));
    rendezvous_.set("gloo/" + key, hex);
  }
  std::vector<char> get(const std::string& key) override {
    const std::string hex = rendezvous_.get("gloo/" + key);
    std::vector<char> data;
    for (size_t i = 0; i + 1 < hex.size(); i += 2) {
      data.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
    }
    return data;
  }
  void wait(const std::vector<std::string>& keys) override {
    for (const auto& key : keys) rendezvous_.get("gloo/" + key);
  }
  void wait(const std::vector<std::string>& keys, const std::chrono::milliseconds&) override {
    wait(keys);
  }

 private:
  const Rendezvous& rendezvous_;
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

  void keep(std::unique_ptr<Buffer> buffer, std::shared_ptr<const void> memory) {
    {
      const std::lock_guard lock(mutex_);
      if (failure_ != nullptr) std::rethrow_exception(failure_);
      sends_.push_back({std::move(memory), std::move(buffer)});
    }
    wake_.notify_all();
  }

 private:
  struct Send {
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
        failure = std::make_exception_ptr(lost(e));
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
  GlooTransport(std::shared_ptr<gloo::rendezvous::Context> context,
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
      keeper_.keep(std::move(buffer), std::move(keep));
    } catch (const gloo::Exception& e) {
      throw lost(e);
    }
  }

  std::unique_ptr<Work> receive(Rank from, uint64_t tag, std::span<float> into) override {
    struct Receive final : Work {
      void wait() override {
        try {
          buffer->waitRecv(patience);
        } catch (const gloo::Exception& e) {
          throw lost(e);
        }
      }
      std::unique_ptr<Buffer> buffer;
      std::chrono::milliseconds patience;
    };
    auto work = std::make_unique<Receive>();
    work->patience = patience_;
    try {
      work->buffer = context_->createUnboundBuffer(into.data(), into.size_bytes());
      work->buffer->recv(from.value, tag);
    } catch (const gloo::Exception& e) {
      throw lost(e);
    }
    return work;
  }

 private:
  std::shared_ptr<gloo::rendezvous::Context> context_;
  std::chrono::milliseconds patience_;
  SendKeeper keeper_;
};

}  // namespace

std::unique_ptr<Transport> connect_gloo(Rank rank, int size, const std::string& host,
                                        const Rendezvous& rendezvous,
                                        std::chrono::milliseconds patience) {
  try {
    gloo::transport::tcp::attr attributes;
    attributes.hostname = host;
    const PoliteThreads polite;
    auto device = gloo::transport::tcp::CreateDevice(attributes);
    auto context = std::make_shared<gloo::rendezvous::Context>(rank.value, size);
    context->setTimeout(patience);
    Store store(rendezvous);
    if (size > 1) context->connectFullMesh(store, device);
    return std::make_unique<GlooTransport>(std::move(context), patience);
  } catch (const gloo::Exception& e) {
    throw lost(e);
  }
}

}  // namespace trireme
