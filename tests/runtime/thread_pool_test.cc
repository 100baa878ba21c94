#include "runtime/device/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>

namespace trireme {
namespace {

TEST(ThreadPool, DoesEveryPieceOnce) {
  ThreadPool pool(4);
  for (int round = 0; round < 200; ++round) {
    std::atomic<int> sum = 0;
    pool.run(round, [&](int piece) { sum += piece + 1; });
    EXPECT_EQ(sum, round * (round + 1) / 2);
  }
}

// Whichever thread it happens on, and when the caller hears of it no piece uses what was its.
TEST(ThreadPool, WhatAPieceThrowsIsTheCallers) {
  for (int threads = 1; threads <= 4; ++threads) {
    ThreadPool pool(threads);
    for (int bad = 0; bad < 8; ++bad) {
      std::atomic<int> running = 0;
      const auto body = [&](int piece) {
        ++running;
        if (piece == bad) {
          --running;
          throw std::runtime_error("no memory");
        }
        --running;
      };
      EXPECT_THROW(pool.run(8, body), std::runtime_error);
      EXPECT_EQ(running, 0);
      std::atomic<int> done = 0;
      pool.run(8, [&](int) { ++done; });
      EXPECT_EQ(done, 8);
    }
  }
}

}  // namespace
}  // namespace trireme
