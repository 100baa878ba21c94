#include "topology/hostlist.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "topology/base/error.h"

namespace trireme {
namespace {

using testing::ElementsAre;

std::string complaint(std::string_view list) {
  try {
    expand_hosts(list);
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::bad_input);
    return e.what();
  }
  return "no complaint";
}

TEST(Hostlist, ANameWithoutBracketsIsItself) {
  EXPECT_THAT(expand_hosts("localhost"), ElementsAre("localhost"));
}

TEST(Hostlist, KeepsTheWrittenOrder) {
  EXPECT_THAT(expand_hosts("b[3,1-2],a"), ElementsAre("b3", "b1", "b2", "a"));
}

TEST(Hostlist, LeadingZerosFixTheWidth) {
  EXPECT_THAT(expand_hosts("gpu[08-11]"), ElementsAre("gpu08", "gpu09", "gpu10", "gpu11"));
  EXPECT_THAT(expand_hosts("gpu[8-11]"), ElementsAre("gpu8", "gpu9", "gpu10", "gpu11"));
  EXPECT_THAT(expand_hosts("gpu[099-101]"), ElementsAre("gpu099", "gpu100", "gpu101"));
  EXPECT_THAT(expand_hosts("gpu[98-100]"), ElementsAre("gpu98", "gpu99", "gpu100"));
  EXPECT_THAT(expand_hosts("gpu[00-01]"), ElementsAre("gpu00", "gpu01"));
}

TEST(Hostlist, TextMayFollowTheBracket) {
  EXPECT_THAT(expand_hosts("gpu[1-2].example.org"),
              ElementsAre("gpu1.example.org", "gpu2.example.org"));
}

TEST(Hostlist, TheLastOfSeveralBracketsVariesFastest) {
  EXPECT_THAT(expand_hosts("r[1-2]n[3-4]"), ElementsAre("r1n3", "r1n4", "r2n3", "r2n4"));
}

TEST(Hostlist, BlanksMaySurroundCommasBetweenNames) {
  EXPECT_THAT(expand_hosts(" a, b ,c "), ElementsAre("a", "b", "c"));
}

TEST(Hostlist, SaysWhatIsWrongAndWhere) {
  EXPECT_EQ(complaint(""), "host list \"\": found nothing, expected a host name (at character 1)");
  EXPECT_EQ(complaint("a,"),
            "host list \"a,\": found nothing, expected a host name (at character 3)");
  EXPECT_EQ(complaint("a,,b"),
            "host list \"a,,b\": found ',', expected a host name (at character 3)");
  EXPECT_EQ(complaint("a b"),
            "host list \"a b\": found 'b', expected a comma or the end (at character 3)");
  EXPECT_EQ(complaint("a]"),
            "host list \"a]\": found ']', expected a comma or the end (at character 2)");
  EXPECT_EQ(
      complaint("a[1-2"),
      "host list \"a[1-2\": found no ] here, expected it after a number or range (at character 6)");
  EXPECT_EQ(complaint("a[]"),
            "host list \"a[]\": found 0 digits, expected a number of 1 to 9 (at character 3)");
  EXPECT_EQ(complaint("a[1-]"),
            "host list \"a[1-]\": found 0 digits, expected a number of 1 to 9 (at character 5)");
  EXPECT_EQ(complaint("a[x]"),
            "host list \"a[x]\": found 0 digits, expected a number of 1 to 9 (at character 3)");
  EXPECT_EQ(complaint("a[3-1]"),
            "host list \"a[3-1]\": found the descending range 3-1, expected the lower end first "
            "(at character 6)");
  EXPECT_EQ(complaint("a[1-010]"),
            "host list \"a[1-010]\": found the range 1-010, whose ends are padded to different "
            "widths, expected equal ones (at character 8)");
  EXPECT_EQ(complaint("a[1234567890]"),
            "host list \"a[1234567890]\": found 10 digits, expected a number of 1 to 9 (at "
            "character 13)");
  EXPECT_EQ(complaint("-oProxyCommand"),
            "host list \"-oProxyCommand\": found a host name that starts with '-', expected a "
            "letter or digit (at character 15)");
  EXPECT_EQ(complaint("root@a"),
            "host list \"root@a\": found '@', expected a comma or the end (at character 5)");
  // Whatever stands there, the message is a line of text.
  EXPECT_EQ(
      complaint(std::string_view("a\0b", 3)),
      "host list \"a\\u0000b\": found '\\u0000', expected a comma or the end (at character 2)");
  EXPECT_EQ(complaint("\xc3\xa4"),
            "host list \"\xc3\xa4\": found '\xc3\xa4', expected a host name (at character 1)");
  EXPECT_EQ(complaint("a[1-3],a2"),
            "host list \"a[1-3],a2\": found a2 twice, expected each host once");
}

TEST(Hostlist, MoreThanAMillionHostsAreRefusedBeforeTheyAreMade) {
  for (const auto* list :
       {"a[0-999999999]", "a[1-1000000],b", "a[1-1000]b[1-1001]", "a[1-999999]b[1-999999]"}) {
    EXPECT_EQ(
        complaint(list),
        fmt::format("host list \"{}\": found more than 1000000 hosts, expected no more", list));
  }
}

TEST(Hostlist, AMillionHostsAreExpandedAndCompressed) {
  const auto hosts = expand_hosts("n[0000000-0999999]");
  EXPECT_EQ(hosts.size(), 1'000'000U);
  EXPECT_EQ(hosts.back(), "n0999999");
  EXPECT_EQ(compress_hosts(hosts), "n[0000000-0999999]");
}

TEST(Hostlist, CompressesRunsOfNumbers) {
  EXPECT_EQ(compress_hosts({}), "");
  EXPECT_EQ(compress_hosts({"a"}), "a");
  EXPECT_EQ(compress_hosts({"gpu08", "gpu09", "gpu10"}), "gpu[08-10]");
  EXPECT_EQ(compress_hosts({"gpu9", "gpu10", "gpu12", "login"}), "gpu[9-10,12],login");
  EXPECT_EQ(compress_hosts({"r1n1", "r2n1", "r2n2"}), "r[1-2]n1,r2n2");
  EXPECT_EQ(compress_hosts({"a3", "a1"}), "a[3,1]");
}

// Every sequence of up to four different hosts out of a set chosen to be nasty: mixed widths, two
// numbers in a name, names that begin or end with digits, numbers too long to be counted.
TEST(Hostlist, EveryOrderOfAwkwardHostsSurvivesTheRoundTrip) {
  const std::vector<std::string> pool = {"a1",  "a2",  "a02",         "a03",        "a10", "a9",
                                         "a",   "1",   "2x1",         "3x1",        "3x2", "b09",
                                         "b10", "b00", "n1234567890", "n1234567891"};
  std::vector<std::string> hosts;
  const auto visit = [&](const auto& self) -> void {
    if (!hosts.empty()) {
      EXPECT_EQ(expand_hosts(compress_hosts(hosts)), hosts) << compress_hosts(hosts);
    }
    if (hosts.size() == 4) return;
    for (const auto& host : pool) {
      if (std::find(hosts.begin(), hosts.end(), host) != hosts.end()) continue;
      hosts.push_back(host);
      self(self);
      hosts.pop_back();
    }
  };
  visit(visit);
}

// All ranges low-high below 130 at every width: the arithmetic is done again with printf.
TEST(Hostlist, EveryRangeExpandsToItsNumbers) {
  for (int width = 1; width <= 4; ++width) {
    for (int low = 0; low < 130; low += 7) {
      for (int high = low; high < 130; ++high) {
        std::vector<std::string> expected;
        for (int n = low; n <= high; ++n) expected.push_back(fmt::format("h{:0{}}", n, width));
        const auto list = fmt::format("h[{:0{}}-{:0{}}]", low, width, high, width);
        ASSERT_EQ(expand_hosts(list), expected) << list;
        ASSERT_EQ(expand_hosts(compress_hosts(expected)), expected);
      }
    }
  }
}

}  // namespace
}  // namespace trireme
