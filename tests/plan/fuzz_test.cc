#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>

#include "planner/plan/plan.h"
#include "planner/plan/protocol.h"
#include "tests/plan/random_plan.h"
#include "topology/base/toml_reader.h"
#include "topology/cluster.h"
#include "topology/hostlist.h"

// Valid inputs, damaged at random: whatever comes out is a value or one Error, within the time that
// the good input takes. The seed is fixed, so that a failure repeats; each test ends by the clock.

namespace trireme {
namespace {

constexpr auto kBudget = std::chrono::milliseconds(400);

std::string mutate(std::string text, const std::vector<std::string>& words,
                   std::mt19937_64& random) {
  const auto below = [&random](size_t n) { return n == 0 ? 0 : static_cast<size_t>(random() % n); };
  for (size_t edits = 1 + below(4); edits > 0; --edits) {
    const size_t at = below(text.size() + 1);
    switch (random() % 6) {
      case 0:
        text.insert(at, 1, static_cast<char>(random() % 256));
        break;
      case 1:
        if (at < text.size()) text[at] = static_cast<char>(random() % 256);
        break;
      case 2:
        text.erase(at, below(20));
        break;
      case 3:
        text.insert(at, text.substr(below(text.size() + 1), below(60)));
        break;
      case 4:
        text.insert(at, words[below(words.size())]);
        break;
      default:
        if (const auto digit = text.find_first_of("0123456789", at); digit != std::string::npos) {
          text.replace(digit, 1, words[below(words.size())]);
        }
    }
  }
  return text;
}

const std::vector<std::string> kWords = {"-1",
                                         "0",
                                         "99999999999999999999",
                                         "1e308",
                                         "nan",
                                         "-inf",
                                         "\"\"",
                                         "[]",
                                         "{}",
                                         "[[",
                                         "]]",
                                         "true",
                                         "[0-999999999]",
                                         "\"auto\"",
                                         "\n",
                                         "=",
                                         ",",
                                         "\xff",
                                         "2147483648",
                                         "(",
                                         ")OVERLAP_F_B",
                                         "9223372036854775807",
                                         std::string(1, '\0')};

void fuzz(const std::vector<std::string>& good,
          const std::function<void(const std::string&)>& read) {
  std::mt19937_64 random(12345);
  const auto begin = std::chrono::steady_clock::now();
  size_t accepted = 0;
  size_t refused = 0;
  for (size_t i = 0; std::chrono::steady_clock::now() - begin < kBudget; ++i) {
    const auto text = mutate(good[i % good.size()], kWords, random);
    try {
      read(text);
      ++accepted;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()), "");
      ++refused;
    }
  }
  EXPECT_GT(refused, 10U);
  testing::Test::RecordProperty("accepted", static_cast<int>(accepted));
  testing::Test::RecordProperty("refused", static_cast<int>(refused));
}

std::vector<std::string> files_in(const std::string& directory) {
  std::vector<std::string> texts;
  for (const auto& entry :
       std::filesystem::directory_iterator(TRIREME_SOURCE_DIR "/configs/" + directory)) {
    texts.push_back(read_text_file(entry.path().string()));
  }
  return texts;
}

TEST(Fuzz, ClusterFiles) {
  fuzz(files_in("clusters"), [](const std::string& text) { parse_cluster(text, "c.toml"); });
}

TEST(Fuzz, JobFiles) {
  fuzz(files_in("jobs"), [](const std::string& text) {
    const auto job = parse_job(text, "j.toml", "/");
    EXPECT_EQ(parse_job(to_toml(job), "again", "/"), job);
  });
}

TEST(Fuzz, PlanFiles) {
  std::mt19937_64 random(99);
  std::vector<std::string> plans;
  for (int i = 0; i < 10; ++i) plans.push_back(to_toml(random_plan(random)));
  fuzz(plans, [](const std::string& text) {
    const auto plan = parse_plan(text, "/p.toml");
    EXPECT_EQ(parse_plan(to_toml(plan), "/again"), plan);
  });
}

TEST(Fuzz, ScheduleCsv) {
  fuzz({"0F0,2F0,0F1,2F1,2B0,0B0,2B1,0B1\n1F0,3F0,,1F1,3F1,3B0,1B0,3B1,1B1\n",
        "(0F1;0B0)OVERLAP_F_B,0I1,0W1\n"},
       [](const std::string& text) {
         const auto schedule = parse_schedule_csv(text, "s.csv");
         EXPECT_EQ(parse_schedule_csv(to_csv(schedule), "s.csv"), schedule);
       });
}

TEST(Fuzz, HostLists) {
  fuzz({"gpu[001-128,200],login", "r[1-2]n[3-4]"}, [](const std::string& text) {
    const auto hosts = expand_hosts(text);
    if (hosts.size() > 10000) return;
    EXPECT_EQ(expand_hosts(compress_hosts(hosts)), hosts) << text;
  });
}

TEST(Fuzz, ControlFrames) {
  const std::string stream =
      encode_frame({{"type", "hello"}, {"rank", 3}, {"pid", 17}}) +
      encode_frame({{"type", "step"}, {"metrics", {{"loss", 1.5}, {"tags", {1, 2, {3}}}}}});
  fuzz({stream}, [](const std::string& bytes) {
    FrameReader reader;
    for (size_t at = 0; at < bytes.size(); at += 7) {
      reader.append(std::string_view(bytes).substr(at, 7));
      while (reader.next()) {
      }
    }
  });
}

}  // namespace
}  // namespace trireme
