#include "tests/tree/style_rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

namespace trireme::tree {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

bool is_in_tree(const std::string& path) {
  return std::filesystem::exists(std::filesystem::path(TRIREME_SOURCE_DIR) / path);
}

TEST(Tree, IsReadWholeAndWithoutBuildProducts) {
  std::vector<std::string> paths;
  for (const SourceFile& file : read_tree(TRIREME_SOURCE_DIR)) paths.push_back(file.path);
  for (const char* known :
       {".ci/run", "CMakeLists.txt", "README.md", "planner/plan/layout.cc", "scripts/test",
        "scripts/lib/build.sh", "topology/base/error.h", "tests/tree/style_rules_test.cc"}) {
    EXPECT_THAT(paths, Contains(known));
  }
  EXPECT_TRUE(std::is_sorted(paths.begin(), paths.end()));
  for (const std::string& path : paths) {
    EXPECT_FALSE(is_below(path, "build/") || is_below(path, ".git/") ||
                 is_below(path, "tests/data/"))
        << path;
  }
}

TEST(Tree, KeepsItsStyle) {
  for (const SourceFile& file : read_tree(TRIREME_SOURCE_DIR)) {
    for (const Complaint& complaint : check_style(file)) ADD_FAILURE() << complaint;
  }
}

TEST(Tree, HasNoLinkThatLeadsNowhere) {
  for (const SourceFile& file : read_tree(TRIREME_SOURCE_DIR)) {
    if (!has_extension(file, ".md")) continue;
    for (const Complaint& complaint : check_links(file, is_in_tree)) ADD_FAILURE() << complaint;
  }
}

const std::string kGoodHeader =
    "#pragma once\n\n// Says what it is.\nstruct A {\n  int a = 0;\n};\n";

TEST(StyleRules, LeaveGoodFilesAlone) {
  EXPECT_THAT(check_style(make_file("planner/a.h",
                                    "#pragma once\n\n// Says what it is.\nstruct A {\n};\n")),
              IsEmpty());
  EXPECT_THAT(check_style(make_file("planner/a.cc", "int main() {}\n")), IsEmpty());
  EXPECT_THAT(check_style(make_file("scripts/a", "#!/usr/bin/env bash\nset -euo pipefail\n", true)),
              IsEmpty());
  EXPECT_THAT(check_style(make_file("README.md", std::string(kMaxColumns + 1, 'a') + "\n")),
              IsEmpty());
}

struct Case {
  std::string path;
  std::string text;
  int line;
  std::string rule;
};

void expect_one_complaint_each(const std::vector<Case>& cases) {
  for (const auto& [path, text, line, rule] : cases) {
    SCOPED_TRACE(path + ":\n" + text.substr(0, 200));
    EXPECT_THAT(check_style(make_file(path, text)),
                ElementsAre(AllOf(Field(&Complaint::file, path), Field(&Complaint::line, line),
                                  Field(&Complaint::rule, HasSubstr(rule)))));
  }
}

std::string lines(size_t count) {
  std::string text;
  for (size_t i = 0; i < count; ++i) text += "int a;\n";
  return text;
}

TEST(StyleRules, ReportWhatNoTextMayHold) {
  expect_one_complaint_each({{"planner/a.cc",
                              "int a;\n// TO"
                              "DO: b\n",
                              2, "no promises"},
                             {"docs/a.md",
                              "FIX"
                              "ME\n",
                              1, "no promises"},
                             {"runtime/CMakeLists.txt",
                              "# XX"
                              "X\n",
                              1, "no promises"},
                             {"planner/a.cc", "\tint a;\n", 1, "no tab"},
                             {"configs/a.toml", "a = 1\nb = 2 \n", 2, "trailing blank"},
                             {"configs/a.toml", "a = 1\r\n", 1, "trailing blank"},
                             {"docs/a.md",
                              "see /wo"
                              "rk/main\n",
                              1, "one machine"},
                             {"configs/a.toml",
                              "path = \"/ro"
                              "ot/text\"\n",
                              1, "one machine"},
                             {"launcher/a.cc",
                              "f(\"/tm"
                              "p/a\");\n",
                              1, "one machine"}});
}

TEST(StyleRules, ReportSourcesThatAreTooWideOrTooLong) {
  expect_one_complaint_each(
      {{"planner/a.cc", std::string(kMaxColumns + 1, 'a') + "\n", 1, "characters a line"},
       {"planner/a.cc", lines(kMaxLines + 1), 0, "one story"},
       {"tests/a.py", lines(kMaxLines + 1), 0, "one story"}});
  EXPECT_THAT(check_style(make_file("planner/a.cc", lines(kMaxLines))), IsEmpty());
}

TEST(StyleRules, ReportHeadersThatSayNothing) {
  expect_one_complaint_each(
      {{"planner/a.h", "// Says what it is.\nstruct A {};\n", 1, "#pragma once"},
       {"planner/a.h", "", 1, "#pragma once"},
       {"planner/a.h", "#pragma once\nstruct A {\n};\n// late\n", 2, "comment"},
       {"planner/a.h", "#pragma once\nclass B;\nclass A : public B {\n};\n", 3, "comment"},
       {"planner/a.h", "#pragma once\nstruct A { int a; };\n", 2, "comment"}});
}

TEST(StyleRules, CountCharactersNotBytes) {
  std::string line;
  for (size_t i = 0; i < kMaxColumns; ++i) line += "\u00e9";
  EXPECT_THAT(check_style(make_file("planner/a.cc", line + "\n")), IsEmpty());
  EXPECT_FALSE(check_style(make_file("planner/a.cc", line + "a\n")).empty());
}

TEST(StyleRules, KnowAPathFromPartOfAPath) {
  EXPECT_THAT(check_style(make_file("docs/a.md",
                                    "net/wo"
                                    "rk/a ../ro"
                                    "ot/b /usr/share/common-licenses\n")),
              IsEmpty());
  EXPECT_THAT(check_style(make_file("tests/a_test.cc", "f(\"/tmp/a\");\n")), IsEmpty());
  EXPECT_THAT(check_style(make_file("launcher/a.cc",
                                    "f(\"trireme-XX"
                                    "XXXX\");\n")),
              IsEmpty());
}

TEST(StyleRules, WantScriptsThatRunAndStopAtTheFirstFailure) {
  const std::string good = "#!/usr/bin/env bash\nset -euo pipefail\n";
  const auto rule = [](const std::string& text) {
    return ElementsAre(Field(&Complaint::rule, HasSubstr(text)));
  };
  EXPECT_THAT(check_style(make_file("scripts/a", good, false)), rule("executable"));
  EXPECT_THAT(check_style(make_file("scripts/a", "set -euo pipefail\n", true)),
              rule("begins with #!"));
  EXPECT_THAT(check_style(make_file(".ci/run", "#!/usr/bin/env bash\nls\n", true)),
              rule("pipefail"));
  EXPECT_THAT(check_style(make_file("scripts/a.py", "#!/usr/bin/env python3\n", true)), IsEmpty());
  EXPECT_THAT(check_style(make_file("scripts/lib/a.sh", "say() { :; }\n", false)), IsEmpty());
}

TEST(LinkRules, ReportWhatLeadsNowhere) {
  const auto exists = [](const std::string& path) {
    return path == "docs/job.md" || path == "README.md";
  };
  const auto check = [&](const std::string& text) {
    return check_links(make_file("docs/a.md", text), exists);
  };
  EXPECT_THAT(check("[job](job.md), [top](../README.md#what), [here](#there), "
                    "[out](https://example.org/x)\n"),
              IsEmpty());
  EXPECT_THAT(
      check("see\n[plan](plan.md)\n"),
      ElementsAre(Complaint{"docs/a.md", 2, "leads to a file that is not there: docs/plan.md"}));
  EXPECT_EQ(check("[a](a.md) and [b](b.md)\n").size(), 2U);
}

TEST(LinkRules, FollowQuotedPathsOfTheProject) {
  const auto exists = [](const std::string& path) { return path == "configs/jobs/a.toml"; };
  const auto check = [&](const std::string& text) {
    return check_links(make_file("README.md", text), exists);
  };
  EXPECT_THAT(
      check("`configs/jobs/a.toml`, `build/release/trireme`, `tests/<area>/a.cc`, `runs/a`\n"),
      IsEmpty());
  EXPECT_THAT(check("`configs/jobs/b.toml`\n"), ElementsAre(Field(&Complaint::line, 1)));
  EXPECT_THAT(check("```\n`configs/jobs/b.toml` [x](y.md)\n```\n"), IsEmpty());
}

}  // namespace
}  // namespace trireme::tree
