#include "launcher/store.h"

#include <gtest/gtest.h>

#include "topology/base/error.h"

namespace trireme {
namespace {

Store::Waiter waiter(int rank, const std::string& key, double deadline) {
  return {.rank = Rank(rank), .id = rank + 100, .deadline = deadline, .key = key};
}

TEST(Store, AKeyIsThereOnceSetAndCanBeReplaced) {
  Store store;
  EXPECT_EQ(store.find("a"), nullptr);
  store.set("a", "1");
  EXPECT_EQ(*store.find("a"), "1");
  store.set("a", "2");
  EXPECT_EQ(*store.find("a"), "2");
  EXPECT_EQ(store.keys(), 1U);
}

TEST(Store, SettingWakesOnlyThoseWhoWaitForThatKeyAndOnlyOnce) {
  Store store;
  store.wait(waiter(1, "a", 5));
  store.wait(waiter(2, "b", 5));
  store.wait(waiter(3, "a", 5));
  const auto woken = store.set("a", "x");
  ASSERT_EQ(woken.size(), 2U);
  EXPECT_EQ(woken[0].rank, Rank(1));
  EXPECT_EQ(woken[1].rank, Rank(3));
  EXPECT_EQ(woken[1].id, 103);
  EXPECT_TRUE(store.set("a", "y").empty());
  EXPECT_EQ(store.waiters(), 1U);
}

TEST(Store, DeadlinesExpireAtTheirTimeAndNotBefore) {
  Store store;
  store.wait(waiter(1, "a", 5));
  store.wait(waiter(2, "a", 7));
  EXPECT_TRUE(store.expire(4.99).empty());
  const auto late = store.expire(5);
  ASSERT_EQ(late.size(), 1U);
  EXPECT_EQ(late[0].rank, Rank(1));
  EXPECT_EQ(store.set("a", "x").size(), 1U);
  EXPECT_TRUE(store.expire(100).empty());
}

TEST(Store, KeysAreBoundedInSizeAndNeverEmpty) {
  Store store;
  EXPECT_THROW(store.set("", "x"), Error);
  EXPECT_THROW(store.set(std::string(Store::kMaxKeyBytes + 1, 'k'), "x"), Error);
  EXPECT_THROW(store.wait(waiter(0, "", 1)), Error);
  EXPECT_NO_THROW(store.set(std::string(Store::kMaxKeyBytes, 'k'), "x"));
}

TEST(Store, BytesAreBoundedAndReplacingGivesThemBack) {
  Store store;
  const std::string half(Store::kMaxBytes / 2 + 1, 'x');
  store.set("a", half);
  EXPECT_THROW(store.set("b", half), Error);
  EXPECT_EQ(store.find("b"), nullptr);
  EXPECT_NO_THROW(store.set("a", half)) << "a replacement does not count twice";
  store.set("a", "");
  EXPECT_NO_THROW(store.set("b", half));
}

TEST(Store, KeysAreBoundedInNumber) {
  Store store;
  for (size_t i = 0; i < Store::kMaxKeys; ++i) {
    store.set(std::to_string(i), "");
  }
  EXPECT_THROW(store.set("one more", ""), Error);
  EXPECT_NO_THROW(store.set("0", "an old one"));
}

}  // namespace
}  // namespace trireme
