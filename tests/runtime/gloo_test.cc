// Ranks that are threads of this process and talk over real sockets.

#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

#include "runtime/comm/gloo_transport.h"

namespace trireme {
namespace {

constexpr std::chrono::seconds kPatience{20};

class Meeting {
 public:
  Rendezvous rendezvous() {
    return {[this](const std::string& key, const std::string& value) {
              const std::lock_guard lock(mutex_);
              values_[key] = value;
              changed_.notify_all();
            },
            [this](const std::string& key) {
              std::unique_lock lock(mutex_);
              changed_.wait_for(lock, kPatience, [&] { return values_.contains(key); });
              return values_.at(key);
            }};
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::string> values_;
};

// Connects rank r with peers[r], all at once.
std::vector<std::unique_ptr<Transport>> connect(const std::vector<std::vector<Rank>>& peers) {
  Meeting meeting;
  const Rendezvous rendezvous = meeting.rendezvous();
  const auto size = static_cast<int>(peers.size());
  std::vector<std::unique_ptr<Transport>> transports(peers.size());
  std::vector<std::thread> threads;
  for (int r = 0; r < size; ++r) {
    threads.emplace_back([&, r] {
      transports[r] = connect_gloo(Rank(r), size, peers[r], "127.0.0.1", rendezvous, kPatience);
    });
  }
  for (auto& thread : threads) thread.join();
  return transports;
}

void send(Transport& from, Rank to, float value) {
  const auto memory = std::make_shared<std::vector<float>>(3, value);
  from.send(to, 7, *memory, memory);
}

std::vector<float> receive(Transport& to, Rank from) {
  std::vector<float> memory(3);
  to.receive(from, 7, memory)->wait();
  return memory;
}

TEST(Gloo, ConnectsARankWithItsPeersAlone) {
  // A line of four: no connection between its ends.
  const auto ranks = connect({{Rank(1)}, {Rank(0), Rank(2)}, {Rank(1), Rank(3)}, {Rank(2)}});
  for (int r = 0; r + 1 < 4; ++r) {
    send(*ranks[r], Rank(r + 1), static_cast<float>(r));
    EXPECT_EQ(receive(*ranks[r + 1], Rank(r)), std::vector<float>(3, static_cast<float>(r)));
    send(*ranks[r + 1], Rank(r), 10);
    EXPECT_EQ(receive(*ranks[r], Rank(r + 1)), std::vector<float>(3, 10));
  }
}

TEST(Gloo, ARankThatLosesAPeerKnowsWhichOne) {
  auto ranks = connect({{Rank(1), Rank(2)}, {Rank(0), Rank(2)}, {Rank(0), Rank(1)}});
  ranks[2].reset();
  try {
    receive(*ranks[0], Rank(2));
    FAIL() << "received from a rank that is gone";
  } catch (const PeerLost& error) {
    EXPECT_EQ(error.peer(), Rank(2));
    EXPECT_EQ(error.kind(), ErrorKind::peer_lost);
  }
  send(*ranks[1], Rank(0), 5);
  EXPECT_EQ(receive(*ranks[0], Rank(1)), std::vector<float>(3, 5)) << "the others are still there";
}

}  // namespace
}  // namespace trireme
