#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace trireme {

// The one pool of a CPU rank. `run(n, body)` calls body(0..n-1), each once, on the pool's threads
// and the caller, and returns when all are done. Bodies must not depend on which thread runs them.
// What one of them throws is thrown to the caller, once none runs any more; pieces that had not
// begun are left out then. One caller at a time.
class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }
  void run(int count, const std::function<void(int)>& body);

 private:
  void work();
  void take_pieces();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable finished_;
  const std::function<void(int)>* body_ = nullptr;
  int next_ = 0;
  int count_ = 0;
  int running_ = 0;
  std::exception_ptr failure_;  // the first
  bool closing_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace trireme
