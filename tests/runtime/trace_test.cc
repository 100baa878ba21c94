#include "runtime/train/trace.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/runtime/support.h"

namespace trireme::test {
namespace {

// Each op of a rank's row is one event by its name, in the order of the row, step by step; a pair
// is one more around its two ops. The peak of memory is a counter after each step.
TEST(Trace, NamesEveryOpAndPairAndThePeakOfMemory) {
  const TemporaryDirectory traces;
  const Plan plan =
      plan_for(tiny_llama(2), {1, 3, 1, 2, "random", 1}, random_schedule(3, 3, 2, 12));
  RunOptions options;
  options.trace_directory = traces.path();
  run_in_memory(plan, options);
  for (int r = 0; r < 3; ++r) {
    std::vector<std::string> row;
    std::vector<std::string> pairs;
    const auto& ops = plan.schedule.ranks[r];
    for (int step = 0; step < 2; ++step) {
      for (size_t i = 0; i < ops.size(); ++i) {
        row.push_back(to_string(ops[i]));
        if (ops[i].overlaps_next)
          pairs.push_back(fmt::format("({};{})", to_string(ops[i]), to_string(ops[i + 1])));
      }
    }
    std::vector<std::string> found;
    std::vector<std::string> found_pairs;
    size_t peaks = 0;
    const auto text = read_text_file(fmt::format("{}/rank-{}.json", traces.path(), r));
    for (const auto& event : nlohmann::json::parse(text)) {
      const auto category = event.value("cat", "");
      if (category == "op") found.push_back(event.at("name"));
      if (category == "pair") found_pairs.push_back(event.at("name"));
      if (event.at("ph") == "C" && event.at("args").at("bytes").get<size_t>() > 0) ++peaks;
    }
    EXPECT_FALSE(pairs.empty());
    EXPECT_EQ(found, row) << r;
    EXPECT_EQ(found_pairs, pairs) << r;
    EXPECT_EQ(peaks, 2U);
  }
}

void add_step(Trace& trace, int step, size_t bytes) {
  trace.begin_step(step);
  trace.add(Trace::Kind::send, std::string(bytes, 'x'), 0, 1);
  trace.end_step();
}

std::vector<int> steps_in(const std::string& path) {
  std::vector<int> steps;
  for (const auto& event : nlohmann::json::parse(read_text_file(path))) {
    if (event.value("cat", "") == "step") steps.push_back(event.at("args").at("step"));
  }
  return steps;
}

// Steps of an eighth of the whole and what is around them: four, a little more than half, stay;
// behind them there is room for three.
TEST(Trace, KeepsTheFirstStepsAndTheLatest) {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/trace.json";
  constexpr int64_t kMost = 80000;
  Trace trace(path, 0, "r0", kMost);
  for (int step = 0; step < 100; ++step) {
    add_step(trace, step, kMost / 8);
    const std::vector<int> steps = steps_in(path);
    ASSERT_EQ(steps.back(), step);
    ASSERT_LE(std::filesystem::file_size(path), static_cast<uintmax_t>(kMost));
    for (int i = 0; i < std::min(step, 4); ++i) EXPECT_EQ(steps[static_cast<size_t>(i)], i);
    EXPECT_LE(steps.size(), 7U);
  }
}

// A file of limited size stands for a disk that is full for a while.
TEST(Trace, LacksTheStepsThatADiskHasNoRoomFor) {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/trace.json";
  Trace trace(path, 0, "r0");
  add_step(trace, 0, 100);
  const auto whole = std::filesystem::file_size(path);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  for (rlim_t room = 0; room < 200; room += 10) {
    const rlimit little{whole + room, before.rlim_max};
    setrlimit(RLIMIT_FSIZE, &little);
    add_step(trace, 1, 1000);
    setrlimit(RLIMIT_FSIZE, &before);
    EXPECT_EQ(steps_in(path), (std::vector<int>{0}));
  }
  std::signal(SIGXFSZ, handler);
  add_step(trace, 2, 100);
  EXPECT_EQ(steps_in(path), (std::vector<int>{0, 2}));
  std::filesystem::remove(path);
  add_step(trace, 3, 100);
  EXPECT_EQ(steps_in(path), (std::vector<int>{3}));
}

}  // namespace
}  // namespace trireme::test
