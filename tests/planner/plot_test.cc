#include "planner/drawing/plot.h"

#include <gmock/gmock.h>

#include <regex>

namespace trireme {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// The heights of the points, from the top.
std::vector<double> heights(const std::string& svg) {
  std::vector<double> heights;
  const std::regex point("<circle cx=\"[0-9.]+\" cy=\"([0-9.]+)\"");
  for (auto it = std::sregex_iterator(svg.begin(), svg.end(), point); it != std::sregex_iterator();
       ++it) {
    heights.push_back(std::stod((*it)[1]));
  }
  return heights;
}

TEST(Plot, DrawsProportionsFromZero) {
  const std::string svg = draw_plot({"t", "nodes", {"1", "2", "4"}, {{"a", {0.0, 1.0, 2.0}}}});
  EXPECT_THAT(svg, StartsWith("<svg "));
  const std::vector<double> at = heights(svg);
  ASSERT_EQ(at.size(), 3U);
  EXPECT_NEAR(at[0] - at[1], at[1] - at[2], 0.02);
  EXPECT_GT(at[0], at[2]);
}

TEST(Plot, LeavesAGapWhereThereIsNoValue) {
  const std::string svg =
      draw_plot({"t", "nodes", {"1", "2", "4", "8"}, {{"a", {1.0, 1.0, std::nullopt, 1.0}}}});
  EXPECT_EQ(heights(svg).size(), 3U);
  const std::regex line("<path d=\"M[0-9. ]+L[0-9. ]+M[0-9. ]+\" fill=\"none\"");
  EXPECT_TRUE(std::regex_search(svg, line)) << svg;
}

TEST(Plot, HasAPanelForEachQuantityAndNamesThatAreEscaped) {
  const std::string svg =
      draw_plot({"a < b", "nodes", {"1"}, {{"speed & more", {1.0}}, {"cost", {2.0}}}});
  EXPECT_THAT(svg, HasSubstr("a &lt; b"));
  EXPECT_THAT(svg, HasSubstr("speed &amp; more"));
  EXPECT_EQ(heights(svg).size(), 2U);
}

TEST(Plot, DrawsWhatHasNoValueAtAll) {
  const std::string svg = draw_plot({"t", "nodes", {"1"}, {{"a", {std::nullopt}}}});
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, Not(HasSubstr("inf")));
}

}  // namespace
}  // namespace trireme
