#include "planner/look_ahead.h"

#include <algorithm>
#include <system_error>
#include <utility>

namespace trireme {
namespace {

// Tasks in line for each thread: enough for the time in which the search takes in a few looks. And
// those with the ones that are done, which may wait while the search looks at what is less.
constexpr size_t kInLine = 32;
constexpr size_t kAhead = 128;

}  // namespace

LookAhead::LookAhead(std::vector<std::unique_ptr<Lookout>> lookouts)
    : lookouts_(std::move(lookouts)) {
  threads_.reserve(lookouts_.size());
  try {
    for (const auto& lookout : lookouts_) {
      threads_.emplace_back([this, &lookout] { work(*lookout); });
    }
  } catch (const std::system_error&) {
    // No more threads are to be had: it goes on with those there are.
  }
}

LookAhead::~LookAhead() {
  end();
}

void LookAhead::end() {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  added_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

size_t LookAhead::room() const {
  const std::lock_guard lock(mutex_);
  const size_t in_line = std::min(kInLine * threads_.size(), to_do_);
  const size_t ahead = std::min(kAhead * threads_.size(), tasks_.size());
  return std::min(kInLine * threads_.size() - in_line, kAhead * threads_.size() - ahead);
}

void LookAhead::add(const Entry& entry, const Candidate& candidate, const Enough& enough) {
  {
    const std::lock_guard lock(mutex_);
    tasks_.emplace(entry, std::make_shared<Task>(Task{candidate, enough}));
    ++to_do_;
  }
  added_.notify_one();
}

std::optional<LookAhead::Entry> LookAhead::least() const {
  const std::lock_guard lock(mutex_);
  if (tasks_.empty()) return std::nullopt;
  return tasks_.begin()->first;
}

Look LookAhead::take(const Entry& entry, Lookout& own) {
  std::unique_lock lock(mutex_);
  const std::shared_ptr<Task> task = tasks_.at(entry);
  while (!task->done()) {
    if (const auto next = task->begun ? next_task() : task) {
      do_task(*next, own, lock);
    } else {
      done_.wait(lock);
    }
  }
  tasks_.erase(entry);
  if (task->failure) std::rethrow_exception(task->failure);
  return *std::move(task->look);
}

void LookAhead::drop(const Entry& entry) {
  const std::lock_guard lock(mutex_);
  const auto task = tasks_.find(entry);
  if (!task->second->begun) --to_do_;
  tasks_.erase(task);
}

void LookAhead::clear() {
  const std::lock_guard lock(mutex_);
  tasks_.clear();
  to_do_ = 0;
}

// The least that nobody has begun; null: there is none.
std::shared_ptr<LookAhead::Task> LookAhead::next_task() const {
  const auto next = std::find_if(tasks_.begin(), tasks_.end(),
                                 [](const auto& task) { return !task.second->begun; });
  return next == tasks_.end() ? nullptr : next->second;
}

void LookAhead::do_task(Task& task, Lookout& lookout, std::unique_lock<std::mutex>& lock) {
  task.begun = true;
  --to_do_;
  lock.unlock();
  std::optional<Look> look;
  std::exception_ptr failure;
  try {
    look = lookout.look(task.candidate, task.enough);
  } catch (...) {
    failure = std::current_exception();
  }
  lock.lock();
  task.look = std::move(look);
  task.failure = failure;
  done_.notify_one();
}

void LookAhead::work(Lookout& lookout) {
  std::unique_lock lock(mutex_);
  while (true) {
    std::shared_ptr<Task> next;
    added_.wait(lock, [&] { return over_ || (next = next_task()); });
    if (over_) return;
    do_task(*next, lookout, lock);
  }
}

}  // namespace trireme
