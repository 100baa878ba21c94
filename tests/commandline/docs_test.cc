// What docs/schedules.md shows is what the tool gives.

#include <gmock/gmock.h>

#include <cmath>
#include <cstdlib>
#include <sstream>

#include "planner/schedules/schedules.h"
#include "tests/commandline/command.h"
#include "topology/base/toml_reader.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

const char* const kDocs = TRIREME_SOURCE_DIR "/docs/";
const char* const kSizes = " --pipeline 4 --microbatches 8 --chunks 2 ";

class SchedulesPage : public Command {
 protected:
  std::string page_ = read_text_file(std::string(kDocs) + "schedules.md");

  // The commands of a console block, run in the test's folder, with what they print.
  std::string replay(const std::string& block) const {
    std::istringstream lines(block);
    std::string shown;
    for (std::string line; std::getline(lines, line);) {
      if (line.compare(0, 2, "$ ") != 0) continue;
      const std::string command = "cd " + directory_ + " && PATH=" + TRIREME_BINARY_DIR +
                                  ":$PATH && { " + line.substr(2) + "; } > shown.txt 2>&1";
      EXPECT_NE(std::system(command.c_str()), -1);
      shown += line + "\n" + read("shown.txt");
    }
    return shown;
  }
};

// The file that a csv block holds is the last one named in backticks before it.
std::string name_before(const std::string& page, size_t at) {
  const size_t end = page.rfind(".csv`", at) + 4;
  const size_t begin = page.rfind('`', end - 1) + 1;
  return page.substr(begin, end - begin);
}

TEST_F(SchedulesPage, ItsSamplesAreReal) {
  const std::string fence = "\n```";
  int replayed = 0;
  for (size_t at = page_.find(fence); at != std::string::npos; at = page_.find(fence, at)) {
    const size_t begin = page_.find('\n', at + fence.size()) + 1;
    const std::string kind = page_.substr(at + fence.size(), begin - 1 - at - fence.size());
    const size_t end = page_.find(fence, begin - 1) + 1;
    const std::string block = page_.substr(begin, end - begin);
    if (kind == "csv") write(name_before(page_, at), block);
    if (kind == "console") {
      EXPECT_EQ(replay(block), block);
      ++replayed;
    }
    at = end + fence.size() - 1;
  }
  EXPECT_GE(replayed, 8);
}

TEST_F(SchedulesPage, ItsPicturesAreTheToolsOwn) {
  for (const std::string& name : built_schedules()) {
    EXPECT_NE(page_.find("](schedules/" + name + ".svg)"), std::string::npos) << name;
    const Answer drawn = trireme("schedule --compare " + name + kSizes + "--format svg");
    ASSERT_EQ(drawn.status, 0) << drawn.err;
    // Whole pictures differ in too much to print.
    EXPECT_TRUE(drawn.out == read_text_file(kDocs + ("schedules/" + name + ".svg")))
        << name << ": out of date; scripts/draw-schedules draws it";
  }
}

TEST_F(SchedulesPage, ItsTableIsTheToolsOwn) {
  for (const std::string& name : built_schedules()) {
    const Answer answer = trireme("schedule --compare " + name + kSizes + "--json");
    ASSERT_EQ(answer.status, 0) << answer.err;
    const Json figures = answer.json()[0];
    double memory = 0;
    for (const Json& peak : figures["peak_memory"]) memory = std::max(memory, peak.get<double>());
    std::ostringstream row;
    row << "\n| " << name << " | " << figures["makespan"].get<double>() << " | "
        << std::round(1000 * figures["bubble_fraction"].get<double>()) / 10;
    const size_t at = page_.find(row.str());
    ASSERT_NE(at, std::string::npos) << row.str();
    std::ostringstream rest;
    rest << " % | " << memory << " | " << figures["messages"] << " | ";
    EXPECT_NE(page_.substr(at, page_.find('\n', at + 1) - at).find(rest.str()), std::string::npos)
        << row.str() << rest.str();
  }
}

}  // namespace
}  // namespace trireme
