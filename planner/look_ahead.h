#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <tuple>
#include <vector>

#include "planner/lookout.h"

namespace trireme {

// Candidates that a search will soon come to, and threads that look at them meanwhile. What a look
// finds does not depend on when it is taken, so the search goes the same way with any number of
// threads; the bounds of what it looks at grow, so it will come to nearly all that stand next in
// line. Used by one thread, the search's.
class LookAhead {
 public:
  using Entry = std::tuple<double, int64_t, size_t>;  // seconds, order, number

  // A thread for each lookout, as far as threads are to be had.
  explicit LookAhead(std::vector<std::unique_ptr<Lookout>> lookouts);
  ~LookAhead();
  LookAhead(const LookAhead&) = delete;
  LookAhead& operator=(const LookAhead&) = delete;

  // How many more candidates the threads need to be busy. Those that are looked at need none, but
  // the threads do not go ever further ahead.
  size_t room() const;
  // The terms are those of Lookout::look.
  void add(const Entry& entry, const Candidate& candidate, const Enough& enough);
  std::optional<Entry> least() const;
  // Takes the candidate out. While another thread looks at it, this one looks at those behind it.
  // Throws what a look throws.
  Look take(const Entry& entry, Lookout& own);
  void drop(const Entry& entry);
  // Takes all candidates out.
  void clear();
  // Waits until the threads are through with what they have begun; then they are gone.
  void end();

 private:
  struct Task {
    Candidate candidate;
    Enough enough = {};
    bool begun = false;
    std::optional<Look> look = {};
    std::exception_ptr failure = {};
    bool done() const { return look || failure; }
  };
  using Tasks = std::map<Entry, std::shared_ptr<Task>>;

  void work(Lookout& lookout);
  std::shared_ptr<Task> next_task() const;
  void do_task(Task& task, Lookout& lookout, std::unique_lock<std::mutex>& lock);

  const std::vector<std::unique_ptr<Lookout>> lookouts_;
  mutable std::mutex mutex_;  // guards all below but the threads, and what tasks point to
  std::condition_variable added_, done_;
  Tasks tasks_;
  size_t to_do_ = 0;  // tasks that nobody has begun
  bool over_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace trireme
