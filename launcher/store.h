#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "topology/base/ids.h"

namespace trireme {

// The run's rendezvous store: ranks find each other by setting and waiting for keys. Held by the
// controller, driven by its clock (seconds, any origin). Bounded, so that no rank can make the
// controller grow. Not thread-safe.
class Store {
 public:
  static constexpr size_t kMaxKeys = 1 << 18;
  static constexpr size_t kMaxKeyBytes = 512;
  static constexpr size_t kMaxBytes = 256 << 20;  // of keys and values together
  static constexpr size_t kMaxWaiters = 1 << 20;

  struct Waiter {
    Rank rank;
    int64_t id = 0;  // the rank's own number for its question
    double deadline = 0;
    std::string key;
  };

  // Sets or replaces a value and gives back those who waited for it. Throws Error(failed) beyond
  // the bounds.
  std::vector<Waiter> set(const std::string& key, std::string value);
  const std::string* find(const std::string& key) const;
  // Remembers who waits for a key that is not there yet. Throws Error(failed) beyond the bounds.
  void wait(Waiter waiter);
  // Those whose deadline has passed; they are forgotten.
  std::vector<Waiter> expire(double now);

  size_t keys() const { return values_.size(); }
  size_t waiters() const { return waiters_.size(); }

 private:
  std::map<std::string, std::string> values_;
  std::multimap<std::string, Waiter> waiters_;  // by key
  size_t bytes_ = 0;
};

}  // namespace trireme
