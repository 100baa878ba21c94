#include "runtime/comm/memory_transport.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "topology/base/check.h"
#include "topology/base/error.h"

namespace trireme {

// One rank's letters. A box of its own, so that a letter wakes nobody but its receiver.
class Mailbox {
 public:
  using Key = std::pair<int, uint64_t>;  // from, tag
  // The sender's own memory, read only when the receiver takes it: as late as a real network may.
  struct Letter {
    std::span<const float> data;
    std::shared_ptr<const void> keep;
  };

  void put(const Key& key, Letter letter) {
    {
      const std::lock_guard lock(mutex_);
      letters_[key].push_back(std::move(letter));
    }
    arrived_.notify_all();
  }

  Letter take(const Key& key) {
    std::unique_lock lock(mutex_);
    arrived_.wait(lock, [&] { return aborted_ || letters_.count(key) > 0; });
    if (aborted_) throw Error(ErrorKind::peer_lost, "another rank failed");
    auto waiting = letters_.find(key);
    Letter letter = std::move(waiting->second.front());
    waiting->second.pop_front();
    if (waiting->second.empty()) letters_.erase(waiting);
    return letter;
  }

  void abort() {
    {
      const std::lock_guard lock(mutex_);
      aborted_ = true;
    }
    arrived_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::map<Key, std::deque<Letter>> letters_;
  bool aborted_ = false;
};

struct MemoryWorld::Mail {
  explicit Mail(int size) : boxes(size) {}
  std::vector<Mailbox> boxes;  // by receiver
};

class MemoryTransport final : public Transport {
 public:
  MemoryTransport(std::shared_ptr<MemoryWorld::Mail> mail, Rank rank, int size)
      : mail_(std::move(mail)), rank_(rank), size_(size) {}

  Rank rank() const override { return rank_; }
  int size() const override { return size_; }

  void send(Rank to, uint64_t tag, std::span<const float> data,
            std::shared_ptr<const void> keep) override {
    mail_->boxes[to.value].put({rank_.value, tag}, {data, std::move(keep)});
  }

  std::unique_ptr<Work> receive(Rank from, uint64_t tag, std::span<float> into) override {
    struct Receive final : Work {
      void wait() override {
        const auto letter = mail->boxes[receiver].take(key);
        TRIREME_CHECK(letter.data.size() == into.size());
        std::copy(letter.data.begin(), letter.data.end(), into.begin());
      }
      std::shared_ptr<MemoryWorld::Mail> mail;
      int receiver = 0;
      Mailbox::Key key;
      std::span<float> into;
    };
    auto work = std::make_unique<Receive>();
    work->mail = mail_;
    work->receiver = rank_.value;
    work->key = {from.value, tag};
    work->into = into;
    return work;
  }

 private:
  std::shared_ptr<MemoryWorld::Mail> mail_;
  Rank rank_;
  int size_;
};

MemoryWorld::MemoryWorld(int size) : size_(size), mail_(std::make_shared<Mail>(size)) {}
MemoryWorld::~MemoryWorld() = default;

std::unique_ptr<Transport> MemoryWorld::transport(Rank rank) {
  return std::make_unique<MemoryTransport>(mail_, rank, size_);
}

void MemoryWorld::abort() {
  for (auto& box : mail_->boxes) box.abort();
}

}  // namespace trireme
