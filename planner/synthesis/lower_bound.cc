#include "planner/synthesis/lower_bound.h"

#include <algorithm>
#include <limits>
#include <queue>

namespace trireme {
namespace {

constexpr int kApart = std::numeric_limits<int>::max() / 4;

// shift(a, b) = d: the k-th op of type b comes after the (k-d)-th of type a, in every schedule.
// Direct waits have shift 0, a type follows itself with 1, and where one stage has a rank for
// itself, its k-th activation waits for the release of the one `limit` before. Chains add up.
class Shifts {
 public:
  explicit Shifts(const Flow& flow) : count_(flow.type_count()), shift_(count_ * count_, kApart) {
    for (size_t to = 0; to < count_; ++to) {
      at(to, to) = 1;
      for (const Flow::Input& input : flow.types[to].inputs) {
        at(static_cast<size_t>(input.type), to) = 0;
      }
    }
    for (size_t rank = 0; rank < flow.of_rank.size(); ++rank) {
      if (flow.of_rank[rank].size() != 3) continue;
      size_t takes = 0, releases = 0;
      for (const int type : flow.of_rank[rank]) {
        if (flow.types[static_cast<size_t>(type)].holds > 0) takes = static_cast<size_t>(type);
        if (flow.types[static_cast<size_t>(type)].holds < 0) releases = static_cast<size_t>(type);
      }
      at(releases, takes) = flow.limit[rank];
    }
    close();
  }

  int operator()(int from, int to) const {
    return shift_[static_cast<size_t>(from) * count_ + static_cast<size_t>(to)];
  }

 private:
  int& at(size_t from, size_t to) { return shift_[from * count_ + to]; }

  // Shortest paths (Floyd and Warshall).
  void close() {
    for (size_t via = 0; via < count_; ++via) {
      for (size_t from = 0; from < count_; ++from) {
        const int first = at(from, via);
        if (first >= kApart) continue;
        for (size_t to = 0; to < count_; ++to) {
          at(from, to) = std::min(at(from, to), first + at(via, to));
        }
      }
    }
  }

  size_t count_;
  std::vector<int> shift_;
};

class Heads {
 public:
  explicit Heads(const Flow& flow)
      : flow_(flow), shifts_(flow), heads_(flow.op_count(), 0), before_(flow.type_count(), 0) {
    for (size_t type = 0; type < flow.type_count(); ++type) {
      for (const int other : flow.of_rank[static_cast<size_t>(flow.types[type].rank)]) {
        const bool takes = flow.types[static_cast<size_t>(other)].holds > 0;
        before_[type] += takes && shifts_(other, static_cast<int>(type)) <= 0 ? 1 : 0;
      }
    }
  }

  std::vector<double> run() {
    for (int k = 0; k < flow_.micro_batches; ++k) {
      for (const int type : flow_.order) {
        double head = std::max(after_inputs(type, k), after_rank(type, k));
        if (flow_.types[static_cast<size_t>(type)].holds > 0) {
          head = std::max(head, after_releases(type, k));
        }
        heads_[flow_.op(type, k)] = head;
      }
    }
    return std::move(heads_);
  }

 private:
  double end(int type, int k) const {
    return heads_[flow_.op(type, k)] + flow_.types[static_cast<size_t>(type)].time;
  }

  double after_inputs(int type, int k) const {
    double head = k > 0 ? end(type, k - 1) : 0;
    for (const Flow::Input& input : flow_.types[static_cast<size_t>(type)].inputs) {
      head = std::max(head, end(input.type, k) + input.lag);
    }
    return head;
  }

  // All that comes before this op on its rank, one after the other in order of heads. Heads of one
  // type ascend, so a merge sorts them.
  double after_rank(int type, int k) {
    lanes_.clear();
    for (const int other :
         flow_.of_rank[static_cast<size_t>(flow_.types[static_cast<size_t>(type)].rank)]) {
      const int shift = shifts_(other, type);
      if (shift <= k)
        lanes_.push_back({flow_.op(other, 0), flow_.op(other, k - shift) + 1,
                          flow_.types[static_cast<size_t>(other)].time});
    }
    double now = 0;
    while (!lanes_.empty()) {
      size_t least = 0;
      for (size_t lane = 1; lane < lanes_.size(); ++lane) {
        if (heads_[lanes_[lane].next] < heads_[lanes_[least].next]) least = lane;
      }
      Lane& lane = lanes_[least];
      now = std::max(now, heads_[lane.next]) + lane.time;
      if (++lane.next == lane.stop)
        lanes_.erase(lanes_.begin() + static_cast<std::ptrdiff_t>(least));
    }
    return now;
  }

  // The op is at least the so-many-th of its rank that takes an activation, and all but `limit` of
  // them must have been released before. Only micro-batches before this one can have been.
  double after_releases(int type, int k) {
    const auto rank = static_cast<size_t>(flow_.types[static_cast<size_t>(type)].rank);
    const int needed = (before_[static_cast<size_t>(type)] + 1) * (k + 1) - flow_.limit[rank];
    if (needed <= 0) return 0;
    releases_.clear();
    for (const int other : flow_.of_rank[rank]) {
      if (flow_.types[static_cast<size_t>(other)].holds >= 0) continue;
      for (int j = 0; j < k; ++j) releases_.push_back(end(other, j));
    }
    const auto nth = releases_.begin() + needed - 1;
    std::nth_element(releases_.begin(), nth, releases_.end());
    return *nth;
  }

  struct Lane {
    size_t next, stop;
    double time;
  };
  const Flow& flow_;
  Shifts shifts_;
  std::vector<double> heads_;
  std::vector<int> before_;  // by type: types of its rank that take an activation before it does
  std::vector<Lane> lanes_;
  std::vector<double> releases_;
};

}  // namespace

Windows windows_of(const Flow& flow) {
  Windows windows;
  windows.heads = Heads(flow).run();
  const std::vector<double> back = Heads(flow.reversed()).run();
  windows.tails.resize(back.size());
  const auto m = static_cast<size_t>(flow.micro_batches);
  for (size_t op = 0; op < back.size(); ++op) {
    windows.tails[op] = back[op / m * m + (m - 1 - op % m)];
  }
  return windows;
}

double lower_bound(const Flow& flow, const Windows& windows) {
  struct Job {
    double head, time, tail;
    bool operator<(const Job& other) const { return tail < other.tail; }
  };
  double bound = 0;
  for (const std::vector<int>& types : flow.of_rank) {
    std::vector<Job> jobs;
    for (const int type : types) {
      for (int k = 0; k < flow.micro_batches; ++k) {
        const size_t op = flow.op(type, k);
        jobs.push_back(
            {windows.heads[op], flow.types[static_cast<size_t>(type)].time, windows.tails[op]});
      }
    }
    std::sort(jobs.begin(), jobs.end(), [](const Job& a, const Job& b) { return a.head < b.head; });
    std::priority_queue<Job> ready;  // the longest tail first, interrupted when a longer one comes
    double now = 0;
    for (size_t next = 0; next < jobs.size() || !ready.empty();) {
      if (ready.empty()) now = std::max(now, jobs[next].head);
      while (next < jobs.size() && jobs[next].head <= now) ready.push(jobs[next++]);
      Job job = ready.top();
      ready.pop();
      const double until =
          next < jobs.size() ? jobs[next].head : std::numeric_limits<double>::infinity();
      const double ran = std::min(job.time, until - now);
      now += ran;
      job.time -= ran;
      if (job.time > 0) {
        ready.push(job);
      } else {
        bound = std::max(bound, now + job.tail);
      }
    }
  }
  return bound;
}

}  // namespace trireme
