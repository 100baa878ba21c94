#include "runtime/comm/memory_transport.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "topology/base/check.h"
#include "topology/base/error.h"

namespace trireme {

struct MemoryWorld::Mail {
  using Key = std::tuple<int, int, uint64_t>;  // from, to, tag
  // The sender's own memory, read only when the receiver takes it: as late as a real network may.
  struct Letter {
    std::span<const float> data;
    std::shared_ptr<const void> keep;
  };
  std::mutex mutex;
  std::condition_variable arrived;
  std::map<Key, std::deque<Letter>> boxes;
  bool aborted = false;

  void put(const Key& key, Letter letter) {
    {
      const std::lock_guard lock(mutex);
      boxes[key].push_back(std::move(letter));
    }
    arrived.notify_all();
  }

  Letter take(const Key& key) {
    std::unique_lock lock(mutex);
    arrived.wait(lock, [&] { return aborted || boxes.count(key) > 0; });
    if (aborted) throw Error(ErrorKind::peer_lost, "another rank failed");
    auto box = boxes.find(key);
    Letter letter = std::move(box->second.front());
    box->second.pop_front();
    if (box->second.empty()) boxes.erase(box);
    return letter;
  }
};

class MemoryTransport final : public Transport {
 public:
  MemoryTransport(std::shared_ptr<MemoryWorld::Mail> mail, Rank rank, int size)
      : mail_(std::move(mail)), rank_(rank), size_(size) {}

  Rank rank() const override { return rank_; }
  int size() const override { return size_; }

  void send(Rank to, uint64_t tag, std::span<const float> data,
            std::shared_ptr<const void> keep) override {
    mail_->put({rank_.value, to.value, tag}, {data, std::move(keep)});
  }

  std::unique_ptr<Work> receive(Rank from, uint64_t tag, std::span<float> into) override {
    struct Receive final : Work {
      void wait() override {
        const auto letter = mail->take(key);
        TRIREME_CHECK(letter.data.size() == into.size());
        std::copy(letter.data.begin(), letter.data.end(), into.begin());
      }
      std::shared_ptr<MemoryWorld::Mail> mail;
      MemoryWorld::Mail::Key key;
      std::span<float> into;
    };
    auto work = std::make_unique<Receive>();
    work->mail = mail_;
    work->key = {from.value, rank_.value, tag};
    work->into = into;
    return work;
  }

 private:
  std::shared_ptr<MemoryWorld::Mail> mail_;
  Rank rank_;
  int size_;
};

MemoryWorld::MemoryWorld(int size) : size_(size), mail_(std::make_shared<Mail>()) {}
MemoryWorld::~MemoryWorld() = default;

std::unique_ptr<Transport> MemoryWorld::transport(Rank rank) {
  return std::make_unique<MemoryTransport>(mail_, rank, size_);
}

void MemoryWorld::abort() {
  {
    const std::lock_guard lock(mail_->mutex);
    mail_->aborted = true;
  }
  mail_->arrived.notify_all();
}

}  // namespace trireme
