#include "runtime/train/trace.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

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

}  // namespace
}  // namespace trireme::test
