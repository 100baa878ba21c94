#include <gtest/gtest.h>

#include <cstddef>
#include <random>
#include <string>
#include <vector>

#include "planner/checker.h"
#include "planner/schedules/generators.h"
#include "planner/simulator.h"
#include "tests/planner/event_simulator.h"
#include "tests/planner/random_schedule.h"
#include "topology/base/error.h"

// Schedule files, damaged at random, through everything that a schedule from a stranger goes
// through: each ends with a schedule that is timed, or with a reason. The seeds are fixed.

namespace trireme {
namespace {

using Rows = std::vector<std::vector<std::string>>;

std::string text_of(const Rows& rows) {
  std::string text;
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) text += (i > 0 ? "," : "") + row[i];
    text += "\n";
  }
  return text;
}

Rows rows_of(const std::string& text) {
  Rows rows(1, std::vector<std::string>(1));
  for (const char c : text) {
    if (c == '\n') {
      rows.push_back({""});
    } else if (c == ',') {
      rows.back().push_back("");
    } else {
      rows.back().back() += c;
    }
  }
  return rows;
}

class Damage {
 public:
  explicit Damage(unsigned seed) : random_(seed) {}

  // Cells moved, lost, doubled, paired or changed: mostly still a table of ops.
  std::string to_cells(const std::string& text) {
    Rows rows = rows_of(text);
    for (size_t edits = 1 + below(3); edits > 0; --edits) edit(rows);
    return text_of(rows);
  }

  // Bytes changed, inserted, lost: mostly no table any more.
  std::string to_bytes(std::string text) {
    for (size_t edits = 1 + below(4); edits > 0; --edits) {
      const size_t at = below(text.size() + 1);
      switch (below(4)) {
        case 0:
          text.insert(at, 1, static_cast<char>(below(256)));
          break;
        case 1:
          text.erase(at, below(12));
          break;
        case 2:
          text.insert(at, text.substr(below(text.size() + 1), below(40)));
          break;
        default:
          text.insert(at, kWords[below(kWords.size())]);
      }
    }
    return text;
  }

  std::mt19937& random() { return random_; }

 private:
  size_t below(size_t n) { return n == 0 ? 0 : random_() % n; }

  void edit(Rows& rows) {
    auto& row = rows[below(rows.size())];
    if (row.empty()) return;
    const size_t at = below(row.size()), other = below(row.size());
    switch (below(8)) {
      case 0:
        std::swap(row[at], row[other]);
        break;
      case 1:
        row.erase(row.begin() + static_cast<std::ptrdiff_t>(at));
        break;
      case 2:
        row.push_back(row[at]);
        break;
      case 3:
        if (!row[at].empty()) row[at].back() = static_cast<char>('0' + below(10));
        break;
      case 4:
        if (at + 1 < row.size()) {
          row[at] = "(" + row[at] + ";" + row[at + 1] + ")OVERLAP_F_B";
          row.erase(row.begin() + static_cast<std::ptrdiff_t>(at) + 1);
        }
        break;
      case 5:
        std::swap(row, rows[below(rows.size())]);
        break;
      case 6:
        rows.push_back(row);
        break;
      default:
        row[at] = kWords[below(kWords.size())];
    }
  }

  const std::vector<std::string> kWords = {"",
                                           "0F0",
                                           "0B0",
                                           "0I0",
                                           "0W0",
                                           "1000000000F0",
                                           "0F1000000000",
                                           "999999F999999",
                                           "0F999999",
                                           "999999F0",
                                           "4294967296F0",
                                           "0f0",
                                           "-1F0",
                                           "0SEND_F0",
                                           "0UNSHARD",
                                           "\"",
                                           "\"\"",
                                           "\r",
                                           "\n",
                                           "\xEF\xBB\xBF",
                                           "()OVERLAP_F_B",
                                           "((0F0;0B0)OVERLAP_F_B;0F1)OVERLAP_F_B",
                                           "(0F0;0B0)OVERLAP_F_B",
                                           std::string(1, '\0')};
  std::mt19937 random_;
};

std::vector<std::string> good_files(std::mt19937& random) {
  std::vector<std::string> files;
  for (const Schedule& schedule :
       {naive_schedule(2, 2), gpipe_schedule(3, 2), one_forward_one_backward_schedule(4, 4),
        interleaved_schedule(2, 4, 2, 2)}) {
    files.push_back(to_csv(schedule));
  }
  for (int i = 0; i < 12; ++i) {
    const auto kind = i % 2 == 0 ? PlacementKind::loop : PlacementKind::v;
    Schedule schedule = random_legal_schedule(random_placement(kind, 2, 1 + i % 3, random), 2,
                                              1 + i % 3, i == 11, random);
    pair_at_random(schedule, 2, random);
    files.push_back(to_csv(schedule));
  }
  return files;
}

struct Tally {
  int unreadable = 0, illegal = 0, legal = 0;
};

void put_through(const std::string& text, Tally& tally) {
  Schedule schedule;
  try {
    schedule = parse_schedule_csv(text, "s.csv");
  } catch (const Error& error) {
    ASSERT_EQ(error.kind(), ErrorKind::bad_input);
    ASSERT_NE(std::string(error.what()), "");
    ++tally.unreadable;
    return;
  }
  ASSERT_EQ(parse_schedule_csv(to_csv(schedule), "s.csv"), schedule);
  const Verdict verdict = check_schedule(schedule);
  ASSERT_EQ(verdict.legal, verdict.reason.empty());
  for (const SendMode mode : {SendMode::buffered, SendMode::batched, SendMode::blocking}) {
    CheckOptions options;
    options.sends = mode;
    options.memory_limit = {2};
    const Verdict under = check_schedule(schedule, options);
    ASSERT_EQ(under.legal, under.reason.empty());
    ASSERT_TRUE(verdict.legal || !under.legal);
  }
  const std::vector<Op> missing = missing_ops(schedule, 10);
  if (!verdict.legal) {
    ASSERT_TRUE(verdict.first_wrong || !missing.empty()) << verdict.reason;
    ++tally.illegal;
    return;
  }
  ASSERT_TRUE(missing.empty());
  Costs costs;
  costs.hop = 0.25;
  costs.transfer = 0.5;
  EventSimulator expected(schedule, costs);
  expected.run();
  ASSERT_NEAR(simulate(schedule, costs).makespan, expected.makespan(), 1e-9);
  ++tally.legal;
}

TEST(ScheduleFuzz, EveryFileEndsTimedOrWithAReason) {
  Damage damage(77);
  const std::vector<std::string> files = good_files(damage.random());
  Tally cells, bytes;
  for (int trial = 0; trial < 20000 && !HasFatalFailure(); ++trial) {
    const std::string& file = files[static_cast<size_t>(trial) % files.size()];
    const bool whole = trial % 3 != 0;
    const std::string text = whole ? damage.to_cells(file) : damage.to_bytes(file);
    SCOPED_TRACE(text);
    put_through(text, whole ? cells : bytes);
  }
  // The damage reaches every stage.
  EXPECT_GT(cells.unreadable, 100);
  EXPECT_GT(cells.illegal, 500);
  EXPECT_GT(cells.legal, 100);
  EXPECT_GT(bytes.unreadable, 500);
  EXPECT_GT(bytes.illegal, 10);
}

TEST(ScheduleFuzz, HugeNumbersCostNothing) {
  Tally tally;
  for (const char* text :
       {"0F999999\n", "0F0,0F999999,0B0\n", "999999F0\n", "0F0,1000000000B0\n"}) {
    put_through(text, tally);
  }
  EXPECT_EQ(tally.illegal, 2);
  EXPECT_EQ(tally.unreadable, 2);
}

TEST(ScheduleFuzz, TheReasonsAreThoseThatAReaderNeeds) {
  const auto reason = [](const char* text) {
    return check_schedule(parse_schedule_csv(text, "s.csv")).reason;
  };
  EXPECT_EQ(reason("0F0,0F1\n1F0,1F1\n"), "");  // inference
  EXPECT_EQ(reason("0F0,0F1\n1F0\n"), "stage 1 never does the forward of micro-batch 1");
  EXPECT_EQ(reason("0F0,0B0\n1B0,1F0\n"),
            "rank 1, op 0: 1B0 stands before 1F0, whose output it takes");
  EXPECT_EQ(reason("0F0,0B0\n1F0,1F1,1B0,1B1\n"),
            "stage 0 never does the forward of micro-batch 1");
  EXPECT_EQ(reason("0F0,0F0,0B0\n"),
            "rank 0, op 1: 0F0 does a second time what stage 0 already did for micro-batch 0");
}

}  // namespace
}  // namespace trireme
