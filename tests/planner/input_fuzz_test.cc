#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <random>
#include <sstream>

#include "planner/explain.h"
#include "planner/summary.h"
#include "topology/base/toml_reader.h"

// Good cluster and job files, damaged, put through the reader and the planner: what comes out is a
// plan, or one Error that says where the file is wrong and what was expected. The seed is fixed;
// TRIREME_FUZZ_TRIALS asks for more trials than the suite's.

namespace trireme {
namespace {

using Lines = std::vector<std::string>;

Lines lines_of(const std::string& text) {
  std::istringstream in(text);
  Lines lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::string text_of(const Lines& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

class Damage {
 public:
  explicit Damage(unsigned seed) : random_(seed) {}

  size_t below(size_t n) { return n == 0 ? 0 : random_() % n; }

  // Keys and tables lost, doubled, moved, renamed, with other values: mostly still TOML.
  std::string to_lines(const std::string& text) {
    Lines lines = lines_of(text);
    for (size_t edits = 1 + below(3); edits > 0 && !lines.empty(); --edits) edit(lines);
    return text_of(lines);
  }

  // Bytes changed, inserted, lost: mostly no TOML any more.
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
          text.insert(at, kValues[below(kValues.size())]);
      }
    }
    return text;
  }

 private:
  void edit(Lines& lines) {
    const size_t at = below(lines.size()), other = below(lines.size());
    std::string& line = lines[at];
    const size_t equals = line.find('=');
    switch (below(6)) {
      case 0:
        lines.erase(lines.begin() + static_cast<std::ptrdiff_t>(at));
        break;
      case 1:
        lines.insert(lines.begin() + static_cast<std::ptrdiff_t>(other), std::string(line));
        break;
      case 2:
        std::swap(line, lines[other]);
        break;
      case 3:
        if (equals != std::string::npos && equals > 1) line.erase(below(equals), 1);
        break;
      default:
        if (equals != std::string::npos) {
          line = line.substr(0, equals + 1) + " " + kValues[below(kValues.size())];
        }
    }
  }

  const Lines kValues = {"-1",
                         "0",
                         "1",
                         "2",
                         "3",
                         "7",
                         "64",
                         "1000",
                         "1048576",
                         "2147483647",
                         "2147483648",
                         "9223372036854775807",
                         "99999999999999999999",
                         "0.5",
                         "1e-300",
                         "1e308",
                         "nan",
                         "-inf",
                         "inf",
                         "true",
                         "\"\"",
                         "\"auto\"",
                         "\"cpu\"",
                         "\"pcie\"",
                         "\"fp32\"",
                         "\"H100-SXM-80GB\"",
                         "\"n[1-64]\"",
                         "\"n[1-999999999]\"",
                         "\"n[1-1000][1-1000][1-1000]\"",
                         "\"\\u0000\"",
                         "[]",
                         "[1, 2]",
                         "{}",
                         ("{name = \"X\", memory_gb = 1e-6, memory_gb_per_s = 1e-6, fp32_tflops = "
                          "1e-6, bf16_tflops = 0, link_gb_per_s = 0, pcie_gb_per_s = 0}"),
                         "{kind = \"pcie\", switch_devices = 3}",
                         "1979-05-27",
                         "\xff",
                         std::string(1, '\0')};
  std::mt19937 random_;
};

Lines files_in(const std::string& directory) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry :
       std::filesystem::directory_iterator(TRIREME_SOURCE_DIR "/configs/" + directory)) {
    paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  Lines texts;
  for (const auto& path : paths) texts.push_back(read_text_file(path.string()));
  return texts;
}

size_t trials(size_t of_suite) {
  const char* asked = std::getenv("TRIREME_FUZZ_TRIALS");
  return asked == nullptr ? of_suite : static_cast<size_t>(std::strtoull(asked, nullptr, 10));
}

// Refusals name the file, and, unless it is no TOML at all, a key and what was expected there.
void expect_helpful(const Error& error, const std::string& file) {
  const std::string what = error.what();
  EXPECT_EQ(error.kind(), ErrorKind::bad_input) << what;
  EXPECT_EQ(what.compare(0, file.size() + 1, file + ":"), 0) << what;
  const auto says = [&](const char* words) { return what.find(words) != std::string::npos; };
  EXPECT_TRUE(says("expected") || says("did you mean") || says("known keys are") ||
              says("not valid TOML: "))
      << what;
  EXPECT_LT(what.size(), 1500U) << what;
  EXPECT_EQ(what.find('\n'), std::string::npos) << what;
}

template <class Parse>
void fuzz_reader(const Lines& good, size_t count, const std::string& file, Parse parse) {
  Damage damage(4242);
  size_t read = 0, refused = 0;
  for (size_t trial = 0; trial < count && !testing::Test::HasFailure(); ++trial) {
    const std::string& text = good[trial % good.size()];
    const std::string damaged = trial % 3 == 0 ? damage.to_bytes(text) : damage.to_lines(text);
    SCOPED_TRACE(damaged);
    try {
      parse(damaged);
      ++read;
    } catch (const Error& error) {
      ++refused;
      expect_helpful(error, file);
    }
  }
  EXPECT_GT(read, count / 20);
  EXPECT_GT(refused, count / 5);
}

TEST(InputFuzz, ClusterFilesAreReadOrRefusedWithAReason) {
  fuzz_reader(files_in("clusters"), trials(4000), "c.toml", [](const std::string& text) {
    const Cluster cluster = parse_cluster(text, "c.toml");
    ASSERT_GT(cluster.device_count(), 0);
  });
}

TEST(InputFuzz, JobFilesAreReadOrRefusedWithAReason) {
  fuzz_reader(files_in("jobs"), trials(4000), "j.toml", [](const std::string& text) {
    const Job job = parse_job(text, "j.toml", "/");
    ASSERT_EQ(parse_job(to_toml(job), "again", "/"), job);
  });
}

// Found by a long run: the parser's own words had the line end in them that it met.
TEST(InputFuzz, AValueThatEndsTooSoonIsToldInOneLine) {
  try {
    parse_job("a = in\n", "j.toml", "/");
    FAIL();
  } catch (const Error& error) {
    expect_helpful(error, "j.toml");
  }
}

// Sizes for which the search of one plan takes milliseconds.
bool is_small(const Job& job, const Cluster& cluster) {
  return job.model.layers <= 64 && job.training.global_batch <= 1024 &&
         cluster.device_count() <= 256;
}

void expect_sound(const PlanResult& result, const Cluster& cluster) {
  const Prediction& prediction = result.plan.prediction;
  ASSERT_GT(prediction.step_seconds, 0);
  ASSERT_TRUE(std::isfinite(prediction.step_seconds));
  double sum = 0;
  for (const auto& [cause, seconds] : prediction.breakdown) {
    ASSERT_GE(seconds, 0) << cause;
    sum += seconds;
  }
  ASSERT_NEAR(sum, prediction.step_seconds, 1e-6 * prediction.step_seconds);
  for (const RankMemory& rank : memory_by_rank(result.plan, cluster)) {
    ASSERT_LE(rank.parts.total(), rank.device_bytes);
  }
  ASSERT_EQ(result.plan.placement.size(), static_cast<size_t>(result.plan.layout.ranks()));
  ASSERT_NE(bottleneck(result.plan), "");
  ASSERT_EQ(axis_spans(result.plan, cluster).size(), 3U);
}

// Whatever both readers take, the planner answers with a sound plan or a reason.
TEST(InputFuzz, WhatIsReadIsPlannedOrRefusedWithAReason) {
  const Lines clusters = files_in("clusters"), jobs = files_in("jobs");
  Damage damage(99);
  size_t planned = 0, refused = 0;
  const size_t count = trials(600);
  for (size_t trial = 0; trial < count && !HasFailure(); ++trial) {
    const std::string& cluster_text = clusters[damage.below(clusters.size())];
    const std::string& job_text = jobs[damage.below(jobs.size())];
    const std::string c = trial % 2 == 0 ? damage.to_lines(cluster_text) : cluster_text;
    const std::string j = trial % 3 == 0 ? job_text : damage.to_lines(job_text);
    SCOPED_TRACE(std::string(c).append("\n----\n").append(j));
    try {
      const Cluster cluster = parse_cluster(c, "c.toml");
      const Job job = parse_job(j, "j.toml", "/");
      if (!is_small(job, cluster)) continue;
      const auto answer = try_plan(job, cluster, {.top = 2});
      if (const auto* none = std::get_if<NoPlan>(&answer)) {
        EXPECT_NE(none->reason, "");
        ++refused;
        continue;
      }
      expect_sound(std::get<PlanResult>(answer), cluster);
      ++planned;
    } catch (const Error& error) {
      EXPECT_TRUE(error.kind() == ErrorKind::bad_input || error.kind() == ErrorKind::unavailable);
      EXPECT_NE(std::string(error.what()), "");
      ++refused;
    }
  }
  EXPECT_GT(planned, count / 20);
  EXPECT_GT(refused, count / 20);
}

TEST(InputFuzz, AMillionNodesAreReadAndOneMoreIsRefused) {
  const auto cluster_of = [](const std::string& hosts) {
    return "[[nodes]]\nhosts = \"" + hosts +
           "\"\ndevice = \"cpu\"\nnics = 1\nnic_gbps = 1\n[fabric]\nkind = \"flat\"\n";
  };
  EXPECT_EQ(parse_cluster(cluster_of("n[1-1000000]"), "c.toml").node_count(), 1'000'000);
  for (const char* hosts : {"n[0-1000000]", "n[1-1000][1-1001]", "n[1-999999999]",
                            "n[1-999999999][1-999999999]", "a,n[1-1000000]"}) {
    try {
      parse_cluster(cluster_of(hosts), "c.toml");
      FAIL() << hosts;
    } catch (const Error& error) {
      expect_helpful(error, "c.toml");
    }
  }
}

}  // namespace
}  // namespace trireme
