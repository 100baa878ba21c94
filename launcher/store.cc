#include "launcher/store.h"

#include <fmt/format.h>

#include <utility>

#include "topology/base/error.h"

namespace trireme {
namespace {

void check_key(const std::string& key) {
  if (key.empty() || key.size() > Store::kMaxKeyBytes) {
    throw Error(ErrorKind::failed, fmt::format("a store key has {} bytes, expected 1 to {}",
                                               key.size(), Store::kMaxKeyBytes));
  }
}

}  // namespace

std::vector<Store::Waiter> Store::set(const std::string& key, std::string value) {
  check_key(key);
  const auto old = values_.find(key);
  const size_t freed = old == values_.end() ? 0 : key.size() + old->second.size();
  const size_t bytes = bytes_ - freed + key.size() + value.size();
  if (bytes > kMaxBytes || (old == values_.end() && values_.size() == kMaxKeys)) {
    throw Error(ErrorKind::failed,
                fmt::format("the store is full: {} keys, {} bytes; refused \"{}\"", values_.size(),
                            bytes_, key));
  }
  bytes_ = bytes;
  values_[key] = std::move(value);
  std::vector<Waiter> woken;
  const auto [begin, end] = waiters_.equal_range(key);
  for (auto it = begin; it != end; ++it) {
    woken.push_back(it->second);
  }
  waiters_.erase(begin, end);
  return woken;
}

const std::string* Store::find(const std::string& key) const {
  const auto it = values_.find(key);
  return it == values_.end() ? nullptr : &it->second;
}

void Store::wait(Waiter waiter) {
  check_key(waiter.key);
  if (waiters_.size() == kMaxWaiters) {
    throw Error(ErrorKind::failed,
                fmt::format("the store has {} waiters; refused one more for \"{}\"",
                            waiters_.size(), waiter.key));
  }
  const std::string key = waiter.key;
  waiters_.emplace(key, std::move(waiter));
}

std::vector<Store::Waiter> Store::expire(double now) {
  std::vector<Waiter> late;
  for (auto it = waiters_.begin(); it != waiters_.end();) {
    if (it->second.deadline <= now) {
      late.push_back(it->second);
      it = waiters_.erase(it);
    } else {
      ++it;
    }
  }
  return late;
}

}  // namespace trireme
