#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "topology/base/error.h"
#include "topology/base/ids.h"

namespace trireme {

// The Error of kind peer_lost that knows which peer it was.
class PeerLost : public Error {
 public:
  PeerLost(Rank peer, const std::string& message)
      : Error(ErrorKind::peer_lost, message), peer_(peer) {}
  Rank peer() const { return peer_; }

 private:
  Rank peer_;
};

// An operation that was started and may still be under way. `wait` returns when it is done and may
// be called once. Destroying it without waiting is allowed only when the world is being torn down.
class Work {
 public:
  virtual ~Work() = default;
  virtual void wait() = 0;
};

// All ranks of a run of `size` but `rank`, ascending.
inline std::vector<Rank> everybody_else(Rank rank, int size) {
  std::vector<Rank> others;
  for (int r = 0; r < size; ++r) {
    if (r != rank.value) others.emplace_back(r);
  }
  return others;
}

// Messages between the ranks of a run. A message is matched by its sender and its tag; messages
// with the same sender and tag arrive in the order they were sent. Sends never block on the
// receiver's progress. One thread issues all calls. Failure: when a peer is gone or silent beyond
// the deadline, any call may throw Error(peer_lost), now or later; PeerLost where the peer is
// known.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual Rank rank() const = 0;
  virtual int size() const = 0;
  // `keep` owns the memory of `data` and is dropped once the message has left.
  virtual void send(Rank to, uint64_t tag, std::span<const float> data,
                    std::shared_ptr<const void> keep) = 0;
  // `into` must stay until the work is waited for.
  virtual std::unique_ptr<Work> receive(Rank from, uint64_t tag, std::span<float> into) = 0;
};

}  // namespace trireme
