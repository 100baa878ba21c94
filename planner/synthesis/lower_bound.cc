#include "planner/synthesis/lower_bound.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <queue>

namespace trireme {
namespace {

constexpr int kApart = std::numeric_limits<int>::max() / 4;
constexpr double kFar = 1e8;

// shift(a, b) = d: the k-th op of type b comes after the (k-d)-th of type a, in every schedule.
// Direct waits have shift 0, a type follows itself with 1, and chains add up. What must have been
// taken before an op that takes memory bounds what must have been released, which gives more
// shifts; these may again show that more was taken.
class Shifts {
 public:
  explicit Shifts(const Flow& flow)
      : flow_(flow), count_(flow.type_count()), shift_(count_ * count_, kApart) {
    for (size_t to = 0; to < count_; ++to) {
      at(to, to) = 1;
      for (const Flow::Input& input : flow.types[to].inputs) {
        at(static_cast<size_t>(input.type), to) = 0;
      }
    }
    close();
    for (int round = 0; round < kRounds; ++round) {
      bool added = false;
      for (const std::vector<int>& types : flow.of_rank) added = add_releases(types) || added;
      if (!added) break;
      close();
    }
  }

  int operator()(int from, int to) const {
    return shift_[static_cast<size_t>(from) * count_ + static_cast<size_t>(to)];
  }

 private:
  static constexpr int kRounds = 3;

  int& at(size_t from, size_t to) { return shift_[from * count_ + to]; }

  // For ops that take memory of this rank: whether a release must come before one sooner than
  // known. When the k-th of the take starts, takes stand at k + 1 - shift(take, it) or more and
  // releases at k + shift(it, release) or less; a type with fewer releases than k + 1 - d would
  // leave too much.
  bool add_releases(const std::vector<int>& types) {
    bool added = false;
    for (const int take : types) {
      if (holds(take) <= 0) continue;
      double held = holds(take);
      for (const int other : types) {
        if (other == take) continue;
        const int apart = holds(other) > 0 ? (*this)(other, take) : (*this)(take, other);
        held += holds(other) > 0 ? holds(other) * (1 - apart) : holds(other) * apart;
      }
      const double spare = flow_.limit[rank_of(take)] - held;
      for (const int other : types) {
        if (holds(other) >= 0 || spare > kFar * -holds(other)) continue;
        // This one may lag behind by all that is spare.
        const double lag = spare / -holds(other) + (*this)(take, other);
        const int shift = 1 + static_cast<int>(std::floor(lag));
        int& known = at(static_cast<size_t>(other), static_cast<size_t>(take));
        added = added || shift < known;
        known = std::min(known, shift);
      }
    }
    return added;
  }

  double holds(int type) const { return flow_.types[static_cast<size_t>(type)].holds; }
  size_t rank_of(int type) const {
    return static_cast<size_t>(flow_.types[static_cast<size_t>(type)].rank);
  }

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

  const Flow& flow_;
  size_t count_;
  std::vector<int> shift_;
};

class Heads {
 public:
  explicit Heads(const Flow& flow)
      : flow_(flow), shifts_(flow), heads_(flow.op_count(), 0), queues_(flow.type_count()) {}

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

  const std::vector<int>& beside(int type) const {
    return flow_.of_rank[static_cast<size_t>(flow_.types[static_cast<size_t>(type)].rank)];
  }

  double after_inputs(int type, int k) const {
    double head = k > 0 ? end(type, k - 1) : 0;
    for (const Flow::Input& input : flow_.types[static_cast<size_t>(type)].inputs) {
      head = std::max(head, end(input.type, k) + input.lag);
    }
    return head;
  }

  // All that comes before this op on its rank, one after the other in order of heads. What came
  // before its predecessor is queued already, and the new ones stand near the end.
  double after_rank(int type, int k) {
    std::vector<Queued>& queue = queues_[static_cast<size_t>(type)];
    size_t changed = queue.size();
    for (const int other : beside(type)) {
      const int shift = shifts_(other, type);
      if (shift > k) continue;
      const Queued made{heads_[flow_.op(other, k - shift)],
                        flow_.types[static_cast<size_t>(other)].time, 0};
      const auto place =
          std::upper_bound(queue.begin(), queue.end(), made,
                           [](const Queued& a, const Queued& b) { return a.head < b.head; });
      changed = std::min(changed, static_cast<size_t>(place - queue.begin()));
      queue.insert(place, made);
    }
    for (size_t i = changed; i < queue.size(); ++i) {
      queue[i].end = std::max(i > 0 ? queue[i - 1].end : 0, queue[i].head) + queue[i].time;
    }
    return queue.empty() ? 0 : queue.back().end;
  }

  // What must have been taken before this op, and itself, exceeds the limit by so much, which must
  // have been released before: at best by the releases with the smallest heads. Looked for from
  // the other side: of all that can have come before, the latest are left out while enough remains.
  double after_releases(int type, int k) {
    double needed = -flow_.limit[static_cast<size_t>(flow_.types[static_cast<size_t>(type)].rank)];
    double released = 0;
    latest_.clear();
    for (const int other : beside(type)) {
      const double holds = flow_.types[static_cast<size_t>(other)].holds;
      if (holds > 0)
        needed += holds * std::max(0, k + 1 - (other == type ? 0 : shifts_(other, type)));
      if (holds >= 0) continue;
      if (shifts_(type, other) > 0) return 0;  // more than k of them can have come before
      released -= holds * k;
      latest_.push_back({other, k - 1});
    }
    if (needed <= 0) return 0;
    while (true) {
      const auto last = std::max_element(latest_.begin(), latest_.end(), [&](auto& a, auto& b) {
        return end_or_never(a) < end_or_never(b);
      });
      released += flow_.types[static_cast<size_t>(last->type)].holds;
      if (released < needed) return std::max(0.0, end_or_never(*last));
      --last->micro_batch;
    }
  }

  struct Queued {
    double head, time, end;
  };
  struct Release {
    int type, micro_batch;  // below 0: none is left
  };

  double end_or_never(const Release& release) const {
    return release.micro_batch < 0 ? -1 : end(release.type, release.micro_batch);
  }

  const Flow& flow_;
  Shifts shifts_;
  std::vector<double> heads_;
  std::vector<std::vector<Queued>> queues_;  // by type: what comes before its ops, by head
  std::vector<Release> latest_;              // of each type that can have come before an op
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
