#include "runtime/device/thread_pool.h"

#include <utility>

namespace trireme {

ThreadPool::ThreadPool(int threads) {
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  wake_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void ThreadPool::run(int count, const std::function<void(int)>& body) {
  if (workers_.empty() || count <= 1) {
    for (int i = 0; i < count; ++i) body(i);
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    body_ = &body;
    next_ = 0;
    count_ = count;
  }
  wake_.notify_all();
  take_pieces();
  std::unique_lock lock(mutex_);
  finished_.wait(lock, [this] { return running_ == 0; });
  body_ = nullptr;
  if (failure_ != nullptr) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void ThreadPool::take_pieces() {
  std::unique_lock lock(mutex_);
  while (next_ < count_) {
    const int piece = next_++;
    ++running_;
    const auto* body = body_;
    lock.unlock();
    std::exception_ptr failure;
    try {
      (*body)(piece);
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    --running_;
    if (failure == nullptr) continue;
    if (failure_ == nullptr) failure_ = failure;
    next_ = count_;
  }
  if (running_ == 0) finished_.notify_all();
}

void ThreadPool::work() {
  std::unique_lock lock(mutex_);
  while (!closing_) {
    wake_.wait(lock, [this] { return closing_ || next_ < count_; });
    if (closing_) return;
    lock.unlock();
    take_pieces();
    lock.lock();
  }
}

}  // namespace trireme
