#include "tests/tree/include_rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

namespace trireme::tree {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<Complaint> check(const std::string& path, const std::string& include) {
  return check_includes(make_file(path, "#pragma once\n\n#include " + include + "\n"));
}

TEST(IncludeDirection, HoldsInTheWholeTree) {
  for (const SourceFile& file : read_tree(TRIREME_SOURCE_DIR)) {
    if (!is_cpp(file)) continue;
    for (const Complaint& complaint : check_includes(file)) ADD_FAILURE() << complaint;
  }
}

TEST(IncludeDirection, IsDecidedForEveryPairOfLayers) {
  const std::array<std::string, 6> layers = {"topology/base/", "topology/", "planner/plan/",
                                             "planner/",       "launcher/", "runtime/"};
  // Row includes column; the drawing in include_rules.h as a matrix.
  const std::array<std::string, 6> allowed = {"100000",   // topology/base
                                              "110000",   // topology
                                              "111000",   // planner/plan
                                              "111100",   // planner
                                              "111110",   // launcher
                                              "111001"};  // runtime
  for (size_t from = 0; from < layers.size(); ++from) {
    for (size_t to = 0; to < layers.size(); ++to) {
      const bool clean = check(layers[from] + "a.cc", "\"" + layers[to] + "b.h\"").empty();
      EXPECT_EQ(clean, allowed[from][to] == '1') << layers[from] << " includes " << layers[to];
    }
  }
}

TEST(IncludeDirection, HoldsInFoldersBelowALayer) {
  EXPECT_THAT(check("runtime/device/cpu.cc", "\"runtime/model/block.h\""), IsEmpty());
  EXPECT_FALSE(check("runtime/device/cpu.cc", "\"planner/schedules/gpipe.h\"").empty());
  EXPECT_FALSE(check("launcher/commands/run.cc", "\"runtime/train/step.h\"").empty());
}

TEST(IncludeDirection, AComplaintNamesFileLineAndRule) {
  EXPECT_THAT(
      check("launcher/agent.cc", "\"runtime/rank.h\""),
      ElementsAre(AllOf(Field(&Complaint::file, "launcher/agent.cc"), Field(&Complaint::line, 3),
                        Field(&Complaint::rule, HasSubstr("launcher/ must not know runtime/")))));
}

TEST(IncludeDirection, TestsMayUseEveryLayerAndNobodyUsesTests) {
  EXPECT_THAT(check("tests/endtoend/parity_test.cc", "\"runtime/rank.h\""), IsEmpty());
  EXPECT_THAT(check("benchmarks/gemm.cc", "\"launcher/store.h\""), IsEmpty());
  EXPECT_FALSE(check("planner/cost.cc", "\"tests/planner/brute_force.h\"").empty());
}

struct Case {
  std::string path;
  std::string include;
  std::string rule;  // part of the complaint; empty: none
};

void expect_complaints(const std::vector<Case>& cases) {
  for (const auto& [path, include, rule] : cases) {
    SCOPED_TRACE(testing::Message() << path << " includes " << include);
    const auto complaints = check(path, include);
    if (rule.empty()) {
      EXPECT_THAT(complaints, IsEmpty());
    } else {
      EXPECT_THAT(complaints, ElementsAre(Field(&Complaint::rule, HasSubstr(rule))));
    }
  }
}

TEST(IncludeRules, OwnHeadersAreNamedFromTheRootInQuotes) {
  expect_complaints({{"planner/plan/job.cc", "\"job.h\"", "from the root"},
                     {"planner/plan/job.cc", "\"plan/job.h\"", "from the root"},
                     {"planner/cost.cc", "\"planner/../runtime/a.h\"", "from the root"},
                     {"planner/plan/job.cc", "\"fmt/format.h\"", "stand in <>"},
                     {"planner/plan/job.cc", "<planner/plan/job.h>", "in quotes"},
                     {"planner/plan/job.cc", "<vector>", ""}});
}

TEST(IncludeRules, PackagesStayBehindTheirInterfaces) {
  expect_complaints({{"launcher/controller.cc", "<boost/asio.hpp>", ""},
                     {"runtime/control/client.cc", "<boost/asio.hpp>", "Boost belongs"},
                     {"planner/search.cc", "<boost/graph/a.hpp>", "Boost belongs"},
                     {"runtime/device/matmul.cc", "<oneapi/dnnl/dnnl.hpp>", ""},
                     {"runtime/model/linear.cc", "<dnnl.hpp>", "oneDNN belongs"},
                     {"runtime/model/linear.cc", "<oneapi/dnnl/dnnl.h>", "oneDNN belongs"},
                     {"runtime/comm/gloo.cc", "<gloo/context.h>", ""},
                     {"runtime/train/step.cc", "<gloo/context.h>", "Gloo belongs"},
                     {"topology/cluster.cc", "<toml++/toml.h>", ""},
                     {"topology/cluster.h", "<toml++/toml.h>", ".cc files only"}});
}

TEST(IncludeRules, ValuesKnowNoClockThreadOrSocket) {
  expect_complaints({{"planner/plan/plan.cc", "<chrono>", "no clock"},
                     {"topology/cluster.cc", "<thread>", "no threads"},
                     {"planner/search.cc", "<chrono>", ""},
                     {"planner/search.cc", "<sys/socket.h>", "no sockets"},
                     {"runtime/control/client.cc", "<netinet/in.h>", ""}});
}

TEST(IncludeRules, ReadIncludesHoweverTheyAreSpaced) {
  const auto lines = [](const std::string& text) {
    return check_includes(make_file("launcher/a.cc", text));
  };
  EXPECT_EQ(lines("  #  include   \"runtime/a.h\"  // why\n").size(), 1U);
  EXPECT_EQ(lines("#include\"runtime/a.h\"").size(), 1U);
  EXPECT_THAT(lines("// #include \"runtime/a.h\"\n"), IsEmpty());
}

}  // namespace
}  // namespace trireme::tree
