#include "planner/shares.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <utility>

#include "topology/base/check.h"

namespace trireme {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

}  // namespace

// Which of the counts from 0 to the last can be.
class Shares::Counts {
 public:
  explicit Counts(size_t last) : last_(last), words_(last / kBits + 1, 0) {}

  bool has(size_t count) const { return (words_[count / kBits] >> count % kBits & 1) != 0; }
  bool has_last() const { return has(last_); }
  void add(size_t count) { words_[count / kBits] |= uint64_t{1} << count % kBits; }
  // Those of the others, each so much higher.
  void add_higher(const Counts& others, size_t by) {
    const size_t words = by / kBits, bits = by % kBits;
    for (size_t to = words_.size(); to-- > words;) {
      const size_t from = to - words;
      words_[to] |= others.words_[from] << bits;
      if (bits > 0 && from > 0) words_[to] |= others.words_[from - 1] >> (kBits - bits);
    }
  }

 private:
  static constexpr size_t kBits = 64;

  size_t last_;
  std::vector<uint64_t> words_;
};

Shares::Shares(int64_t total, const std::vector<Set>& sets, std::optional<int64_t> grows_from)
    : beyond_fewest_(total), grows_from_(grows_from) {
  for (const Set& set : sets) {
    beyond_fewest_ -= set.replicas * set.fewest;
    Numbers& numbers = sets_.emplace_back(Numbers{set.replicas, set.fewest, {}, set.excess});
    for (const double seconds : set.seconds) numbers.of.push_back({seconds, seconds});
  }
}

double Shares::Numbers::expected(const Number& number) const {
  return number.known ? number.least : std::max(number.least, number.bound + excess);
}

std::vector<Shares::Counts> Shares::within_reach(const Times& times, double seconds) const {
  const auto last = static_cast<size_t>(beyond_fewest_);
  std::vector<Counts> reach(1, Counts(last));
  reach.front().add(0);
  for (size_t set = 0; set < sets_.size(); ++set) {
    Counts next(last);
    const auto replicas = static_cast<size_t>(sets_[set].replicas);
    for (size_t more = 0; more < times[set].size() && more * replicas <= last; ++more) {
      if (times[set][more] <= seconds) next.add_higher(reach.back(), more * replicas);
    }
    reach.push_back(std::move(next));
  }
  return reach;
}

// Of the times that sets take, the least in which they can take all micro-batches.
std::optional<Way> Shares::fastest(const Times& times) const {
  std::vector<double> all;
  for (const std::vector<double>& of_set : times) {
    std::copy_if(of_set.begin(), of_set.end(), std::back_inserter(all),
                 [](double seconds) { return seconds < kNever; });
  }
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  const auto enough = std::partition_point(all.begin(), all.end(), [&](double seconds) {
    return !within_reach(times, seconds).back().has_last();
  });
  if (enough == all.end()) return std::nullopt;
  const auto reach = within_reach(times, *enough);
  Way way(sets_.size(), 0);
  auto left = static_cast<size_t>(beyond_fewest_);
  for (size_t set = sets_.size(); set-- > 0;) {
    const auto replicas = static_cast<size_t>(sets_[set].replicas);
    size_t more = 0;
    while (times[set][more] > *enough || !reach[set].has(left - more * replicas)) ++more;
    left -= more * replicas;
    way[set] = sets_[set].fewest + static_cast<int64_t>(more);
  }
  return way;
}

template <class TimeOf>
Shares::Times Shares::times_of(TimeOf time_of) const {
  Times times;
  for (const Numbers& set : sets_) {
    std::vector<double>& of_set = times.emplace_back();
    for (const Number& number : set.of) of_set.push_back(time_of(set, number));
  }
  return times;
}

double Shares::slowest_set(const Way& way) const {
  double longest = 0;
  for (size_t set = 0; set < way.size(); ++set) {
    const auto more = static_cast<size_t>(way[set] - sets_[set].fewest);
    longest = std::max(longest, sets_[set].of[more].least);
  }
  return longest;
}

std::optional<Way> Shares::next(double below) const {
  if (beyond_fewest_ < 0) return std::nullopt;
  const auto known_seconds = [below](const Numbers&, const Number& number) {
    if (!number.known || number.least >= below) return kNever;
    return number.least;
  };
  const std::optional<Way> known = fastest(times_of(known_seconds));
  const double limit = known ? slowest_set(*known) : below;
  const auto expected_seconds = [limit](const Numbers& set, const Number& number) {
    if (number.least >= limit) return kNever;
    return set.expected(number);
  };
  const std::optional<Way> open = fastest(times_of(expected_seconds));
  return open ? open : known;
}

void Shares::learn(size_t set, int64_t micro_batches, double seconds, double below) {
  Numbers& numbers = sets_[set];
  const auto more = static_cast<size_t>(micro_batches - numbers.fewest);
  TRIREME_CHECK(more < numbers.of.size());
  Number& learnt = numbers.of[more];
  if (grows_from_) {
    const double about =
        std::isfinite(seconds) ? seconds : std::max(below, numbers.expected(learnt));
    numbers.excess = about - learnt.bound;
  }
  learnt.least = seconds;
  learnt.known = true;
  if (!grows_from_ || micro_batches < *grows_from_) return;
  for (size_t later = more + 1; later < numbers.of.size(); ++later) {
    numbers.of[later].least = std::max(numbers.of[later].least, seconds);
  }
}

}  // namespace trireme
