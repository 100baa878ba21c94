#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "planner/schedules/generators.h"
#include "planner/schedules/schedules.h"

namespace trireme {
namespace {

// One point of the grid on which the formulas of the literature are held against the simulation:
// forward, input and weight gradient of a stage and the latency of a hop.
struct Point {
  int p = 1, m = 1;
  double f = 1, i = 1, w = 1, c = 0;

  double b() const { return i + w; }
  bool unit() const { return f == 1 && i == 1 && w == 1 && c == 0; }
  Costs costs() const {
    Costs result;
    result.stages = {{f, i, w}};
    result.hop = c;
    return result;
  }
  Simulation simulate(const Schedule& schedule) const {
    return trireme::simulate(schedule, costs());
  }
  double makespan(const Schedule& schedule) const { return makespan_of(schedule, costs()); }
};

std::string at(const Point& x) {
  return ::testing::PrintToString(
      std::vector<double>{double(x.p), double(x.m), x.f, x.i, x.w, x.c});
}

// All p and a spread of m, forwards cheaper and dearer than input gradients and these than weight
// gradients, without and with latency.
void for_all_points(const std::function<void(const Point&)>& check) {
  constexpr double kCosts[][3] = {{1, 1, 1},   {1, 1.5, 0.5}, {1, 0.5, 1.5},
                                  {2, 1, 0.5}, {0.5, 1, 2},   {1, 2, 0.75}};
  for (int p = 1; p <= 16; ++p) {
    for (int m = 1; m <= 64; m += m < 20 || m % 8 == 0 ? 1 : 3) {
      for (const auto& [f, i, w] : kCosts) {
        for (const double c : {0.0, 0.5, 1.0, 2.0}) check({p, m, f, i, w, c});
      }
    }
  }
}

TEST(ScheduleFormulas, NaiveTakesAllWorkAndEveryHop) {
  for_all_points([](const Point& x) {
    ASSERT_NEAR(x.makespan(naive_schedule(x.p, x.m)),
                x.m * x.p * (x.f + x.b()) + 2 * x.m * (x.p - 1) * x.c, 1e-9)
        << at(x);
  });
}

TEST(ScheduleFormulas, GpipePaysForFillAndDrain) {
  for_all_points([](const Point& x) {
    ASSERT_NEAR(x.makespan(gpipe_schedule(x.p, x.m)),
                (x.m + x.p - 1) * (x.f + x.b()) + 2 * (x.p - 1) * x.c, 1e-9)
        << at(x);
  });
}

// Every p micro-batches the round trip is waited for once more.
TEST(ScheduleFormulas, OneForwardOneBackwardPaysLatencyForEveryMicroBatch) {
  for_all_points([](const Point& x) {
    if (x.p == 1 || (x.c > 0 && x.m % x.p != 0)) return;
    const double latency = x.c * (2 * (x.p - 2) + 2.0 * x.m * (x.p - 1) / x.p);
    ASSERT_NEAR(x.makespan(one_forward_one_backward_schedule(x.p, x.m)),
                (x.m + x.p - 1) * (x.f + x.b()) + latency, 1e-9)
        << at(x);
  });
}

TEST(ScheduleFormulas, EagerHidesAHopOfHalfAForwardAndBackward) {
  for_all_points([](const Point& x) {
    if (x.c > (x.f + x.b()) / 2) return;
    ASSERT_NEAR(x.makespan(eager_schedule(x.p, x.m)),
                (x.m + x.p - 1) * (x.f + x.b()) + 2 * (x.p - 1) * x.c, 1e-9)
        << at(x);
  });
}

TEST(ScheduleFormulas, InterleavedPaysForFillAndDrainOfOneChunk) {
  for_all_points([](const Point& x) {
    if (x.p == 1 || x.m % x.p != 0 || x.c > std::min(x.f, (x.f + x.b()) / 2)) return;
    for (int v = 1; v <= 4; ++v) {
      ASSERT_NEAR(x.makespan(interleaved_schedule(x.p, x.m, v, x.p)),
                  (x.m * v + x.p - 1) * (x.f + x.b()) + 2 * (x.p * v - 1) * x.c, 1e-9)
          << at(x) << " v" << v;
    }
  });
}

// The hops between chunks hide behind the micro-batches beyond a pipeline full, if these suffice.
TEST(ScheduleFormulas, BreadthFirstHidesTheHopsBetweenChunks) {
  for_all_points([](const Point& x) {
    const double shorter = std::min(x.f, x.b());
    const bool hidden = x.p * (shorter + x.c) <= x.m * shorter;
    if (x.p == 1 || (x.m == x.p ? false : x.m < 2 * x.p || !hidden)) return;
    for (int v = 1; v <= 4; ++v) {
      const int hops = 2 * (x.m == x.p ? x.p * v - 1 : x.p - 1);
      ASSERT_NEAR(x.makespan(breadth_first_schedule(x.p, x.m, v)),
                  (x.m * v + x.p - 1) * (x.f + x.b()) + hops * x.c, 1e-9)
          << at(x) << " v" << v;
    }
  });
}

// The published (p-1)(F+I-W) is this where W is the shortest.
TEST(ScheduleFormulas, ZbH1WaitsForTheLongestOfThreePaths) {
  for_all_points([](const Point& x) {
    const int rounds = std::max(1, x.m / x.p);
    if (x.c > 0 || x.m < x.p) return;
    const double bubble = (x.p - 1) * std::max({x.f + x.i - x.w, x.f, x.i});
    ASSERT_NEAR(x.makespan(zb_h1_schedule(x.p, x.m)), x.m * (x.f + x.b()) + bubble, 1e-9) << at(x);
    if (x.m % rounds != 0) return;
    for (int v = 2; v <= 4; ++v) {
      ASSERT_NEAR(x.makespan(interleaved_zb_schedule(x.p, x.m, v, x.m / rounds)),
                  x.m * v * (x.f + x.b()) + bubble, 1e-9)
          << at(x) << " v" << v;
    }
  });
}

TEST(ScheduleFormulas, ZbH2LeavesNoIdleTimeWithinARank) {
  for_all_points([](const Point& x) {
    if (x.c > 0 || x.m < 2 * x.p) return;
    const Simulation simulation = x.simulate(zb_h2_schedule(x.p, x.m));
    ASSERT_NEAR(simulation.span,
                x.m * (x.f + x.b()) + (x.p - 1) * std::max({0.0, x.f + x.i - 2 * x.w, x.i - x.f}),
                1e-9)
        << at(x);
    if (x.unit()) {
      ASSERT_EQ(simulation.makespan, 3 * x.m + x.p - 1) << at(x);
    }
  });
}

TEST(ScheduleFormulas, ZbVLeavesNoIdleTimeWithinARank) {
  for_all_points([](const Point& x) {
    if (!x.unit() || x.m < 2 * x.p - 1) return;
    const Simulation simulation = x.simulate(zb_v_schedule(x.p, x.m));
    ASSERT_EQ(simulation.span, 6 * x.m) << at(x);
    ASSERT_EQ(simulation.makespan, 6 * x.m + x.p - 1) << at(x);
  });
}

TEST(ScheduleFormulas, DualPipeVWithPairsOfThree) {
  for_all_points([](const Point& x) {
    if (!x.unit() || x.m < 2 * x.p) return;
    ASSERT_EQ(x.makespan(dualpipe_v_schedule(x.p, x.m)), 6 * x.m + 2 * (x.p - 1)) << at(x);
  });
}

// About p/2m and 2p/3m of 6m slots.
TEST(ScheduleFormulas, VHalfAndVMinPayTimeForMemory) {
  for_all_points([](const Point& x) {
    if (!x.unit() || x.m < 2 * x.p) return;
    ASSERT_LE(x.makespan(v_half_schedule(x.p, x.m)), 6 * x.m + 3 * x.p) << at(x);
    ASSERT_LE(x.makespan(v_min_schedule(x.p, x.m)), 6 * x.m + 4 * x.p) << at(x);
  });
}

struct Peak {
  const char* name;
  std::function<int(int p, int v, int m, int r)> least, most;
};

// Chunk activations of every rank; where one figure is published, it is both.
std::vector<Peak> peaks() {
  const auto exactly = [](const char* name, const std::function<int(int, int, int, int)>& peak) {
    return Peak{name, peak, peak};
  };
  const auto v_shape = [](const char* name, const std::function<int(int)>& peak, int below) {
    return Peak{name, [=](int p, int, int, int) { return peak(p) - below; },
                [=](int p, int, int, int) { return peak(p); }};
  };
  return {
      exactly("naive", [](int, int, int, int) { return 1; }),
      exactly("gpipe", [](int, int, int m, int) { return m; }),
      exactly("1f1b", [](int p, int, int m, int r) { return std::min(p - r, m); }),
      exactly("pipedream", [](int p, int, int m, int r) { return std::min(p - r, m); }),
      exactly("eager-1f1b", [](int p, int, int m, int r) { return std::min(2 * (p - r) - 1, m); }),
      exactly("breadth-first", [](int, int v, int m, int) { return m * v; }),
      exactly("zb-h1", [](int p, int, int, int) { return p; }),
      exactly("interleaved-zb", [](int p, int v, int, int) { return p * v; }),
      exactly("zb-h2", [](int p, int, int, int) { return 2 * p - 1; }),
      v_shape(
          "zb-v", [](int p) { return 2 * p; }, 0),
      v_shape(
          "v-half", [](int p) { return 2 * ((p + 2) / 2); }, 0),
      v_shape(
          "v-min", [](int p) { return 2 * ((p + 4) / 3); }, 1),
      v_shape(
          "dualpipe-v", [](int p) { return 2 * p + 1; }, 0)};
}

TEST(ScheduleFormulas, PeakActivationsAreAsPublished) {
  for (const Peak& peak : peaks()) {
    for (int p = 1; p <= 16; ++p) {
      for (int m = 2 * p; m <= 64; m += p) {
        for (int v = 1; v <= 3; ++v) {
          if (fixed_chunks(peak.name).value_or(v) != v) continue;
          const Simulation simulation = simulate(
              make_schedule({.name = peak.name, .pipeline = p, .micro_batches = m, .chunks = v}),
              {});
          for (int r = 0; r < p; ++r) {
            const int held = simulation.peak_activations[static_cast<size_t>(r)];
            ASSERT_GE(held, peak.least(p, v, m, r)) << peak.name << " p" << p << " m" << m;
            ASSERT_LE(held, peak.most(p, v, m, r)) << peak.name << " p" << p << " m" << m;
          }
        }
      }
    }
  }
}

TEST(ScheduleFormulas, InterleavedHoldsTheWarmUpAndOne) {
  for (int p = 1; p <= 16; ++p) {
    for (int m = 1; m <= 40; ++m) {
      for (const int g : legal_groups(p, m)) {
        const Simulation simulation = simulate(interleaved_schedule(p, m, 3, g), {});
        for (int r = 0; r < p; ++r) {
          ASSERT_EQ(simulation.peak_activations[static_cast<size_t>(r)],
                    std::min(2 * (p - 1 - r) + 2 * g + 1, 3 * m));
        }
      }
    }
  }
}

// Every output crosses to another rank, but for the turning point of a V.
TEST(ScheduleFormulas, MessagesCrossEveryCut) {
  for (const std::string& name : built_schedules()) {
    for (int p = 2; p <= 9; ++p) {
      for (const int m : {2 * p, 2 * p + 3}) {
        const int v = fixed_chunks(name).value_or(3);
        const bool turns = places_of(name, p, v) != loop_placement(p, v);
        const int cuts = turns ? 2 * (p - 1) : p * v - 1;
        const Schedule schedule =
            make_schedule({.name = name, .pipeline = p, .micro_batches = m, .chunks = v});
        EXPECT_EQ(simulate(schedule, {}).messages, (name == "forward-only" ? 1 : 2) * m * cuts)
            << name;
      }
    }
  }
}

// When a rank has its last gradient of a stage: 1F1B leaves rank r idle for r backwards, ZB-H1
// leaves nobody.
TEST(ScheduleFormulas, TailSlack) {
  for (int p = 2; p <= 8; ++p) {
    for (int m = p; m <= 24; ++m) {
      const Simulation plain = simulate(one_forward_one_backward_schedule(p, m), {});
      const Simulation split = simulate(zb_h1_schedule(p, m), {});
      for (int r = 0; r < p; ++r) {
        EXPECT_EQ(plain.tail_slack[static_cast<size_t>(r)][0], 2 * r);
        EXPECT_EQ(split.tail_slack[static_cast<size_t>(r)][0], 0);
      }
    }
  }
}

struct HandCase {
  const char* name;
  int chunks;
  std::vector<double> bubble;  // makespan (of zb-v the span) - 3m, for p2 m4, p4 m8 and p8 m16
  double held;                 // micro-batches on the worst rank of p4 m8
};

// F = I = W = 1 for all chunks of a rank together.
TEST(ScheduleFormulas, HandCases) {
  const std::vector<HandCase> cases = {{"gpipe", 1, {3, 9, 21}, 8},
                                       {"1f1b", 1, {3, 9, 21}, 4},
                                       {"interleaved", 2, {1.5, 4.5, 10.5}, 5.5},
                                       {"zb-h1", 1, {1, 3, 7}, 4},
                                       {"zb-v", 2, {0, 0, 0}, 4}};
  for (const HandCase& hand : cases) {
    for (const int k : {0, 1, 2}) {
      const int p = 2 << k, m = 2 * p;
      const double op = 1.0 / hand.chunks;
      const Point point{p, m, op, op, op, 0};
      const Simulation simulation = point.simulate(make_schedule(
          {.name = hand.name, .pipeline = p, .micro_batches = m, .chunks = hand.chunks}));
      const bool spans = hand.name == std::string("zb-v");
      EXPECT_NEAR((spans ? simulation.span : simulation.makespan) - 3 * m,
                  hand.bubble[static_cast<size_t>(k)], 1e-9)
          << hand.name;
      if (k != 1) continue;
      const std::vector<int>& peaks = simulation.peak_activations;
      EXPECT_EQ(*std::max_element(peaks.begin(), peaks.end()) * op, hand.held) << hand.name;
    }
  }
}

// By trial on the first rank of every V-Min up to 40 ranks. Its round trips bound it more closely
// than its work where weight gradients take less than the rest: with stages of 1, 1, 0.5 a
// micro-batch works for 5 on a rank, and the trip of 4p takes 2p/3 of them 6.
TEST(ScheduleFormulas, RoundTripsBoundVMin) {
  for (int p = 2; p <= 40; ++p) {
    for (const int m : {1, 2, p / 2 + 1, p, 2 * p + 1, 4 * p}) {
      const Schedule schedule =
          make_schedule({.name = "v-min", .pipeline = p, .micro_batches = m, .chunks = 2});
      int held = 0, most = 0;
      for (const Op& op : schedule.ranks[0]) {
        if (op.stage != 0 || op.kind == OpKind::backward_weight) continue;
        held += op.kind == OpKind::forward ? 1 : -1;
        most = std::max(most, held);
      }
      const int back = 4 * p - 1 + (p % 3 == 0 ? 2 : 0);  // slots, of which a micro-batch takes six
      EXPECT_EQ(most, std::min(m, back / 6 + 1)) << "p" << p << " m" << m;
      const Costs costs{.stages = {{1, 1, 0.5}}};
      const double bound = schedule_bound("v-min", p, 2, costs).seconds(m);
      EXPECT_GE(makespan_of(schedule, costs), bound * (1 - 1e-12)) << "p" << p << " m" << m;
      const int trips = (m - 1) / most + 1;
      EXPECT_GE(bound, 4.0 * p * trips);
    }
  }
}

// Equal stages of 1 and 2 and hops of h on p ranks: in every p micro-batches the first rank waits
// while messages go to the last and come back, 2 (p - 1) h. Other ranks wait for a few messages
// more at the ends.
TEST(ScheduleFormulas, RoundTripsBoundOneForwardOneBackwardClosely) {
  const Costs costs{.stages = {{1, 1, 1}}, .hop = 0.25};
  for (int p = 1; p <= 8; ++p) {
    const double messages = 2 * (p - 1) * costs.hop;
    for (int m = 1; m <= 5 * p; ++m) {
      const double bound = schedule_bound("1f1b", p, 1, costs).seconds(m);
      const int trips = (m + p - 1) / p;
      EXPECT_GE(bound, (m + p - 1) * 3 + messages * trips) << p << ' ' << m;
      const Schedule schedule = make_schedule({.name = "1f1b", .pipeline = p, .micro_batches = m});
      EXPECT_LE(makespan_of(schedule, costs), bound + messages) << p << ' ' << m;
    }
  }
}

// What a search relies on, with stages of different lengths.
TEST(ScheduleFormulas, NoScheduleBeatsItsBoundsOfTimeAndMemory) {
  for (const std::string& name : built_schedules()) {
    for (int p = 1; p <= 6; ++p) {
      for (int m = 1; m <= 14; ++m) {
        for (const double hop : {0.0, 0.5, 4.0}) {
          const int v = fixed_chunks(name).value_or(2);
          ScheduleRequest request{.name = name, .pipeline = p, .micro_batches = m, .chunks = v};
          if (why_not(request)) continue;
          request.costs.hop = hop;
          request.costs.overlap = std::min(hop, 1.0);
          request.costs.stages.clear();
          for (int s = 0; s < v * p; ++s) {
            request.costs.stages.push_back({1.0 + 0.3 * (s % 3), 1.0 + 0.2 * (s % 2), 0.5});
          }
          const Simulation simulation = simulate(make_schedule(request), request.costs);
          EXPECT_GE(simulation.makespan * (1 + 1e-12),
                    schedule_bound(name, p, v, request.costs).seconds(m))
              << name << " p" << p << " m" << m;
          EXPECT_EQ(schedule_bound(name, p, v, request.costs, m).seconds(m),
                    schedule_bound(name, p, v, request.costs).seconds(m));
          for (int r = 0; r < p; ++r) {
            EXPECT_LE(least_peak_activations(name, p, v, m)[static_cast<size_t>(r)],
                      simulation.peak_activations[static_cast<size_t>(r)])
                << name << " p" << p << " m" << m << " r" << r;
          }
        }
      }
    }
  }
}

// The bounds are close enough to be of use: without latency these reach them.
TEST(ScheduleFormulas, EvenStagesReachTheBound) {
  for (const char* name : {"naive", "gpipe", "1f1b", "eager-1f1b", "breadth-first", "zb-h1",
                           "zb-h2", "zb-v", "forward-only", "interleaved"}) {
    for (int p = 1; p <= 8; ++p) {
      const int m = 3 * p, v = fixed_chunks(name).value_or(2);
      EXPECT_NEAR(
          makespan_of(make_schedule({.name = name, .pipeline = p, .micro_batches = m, .chunks = v}),
                      {}),
          schedule_bound(name, p, v, {}).seconds(m), 1e-9)
          << name << " p" << p;
    }
  }
}

// Then a later chunk bounds the step: a micro-batch goes round the whole pipeline before a rank has
// work for the next.
TEST(ScheduleFormulas, EvenStagesReachTheBoundWithHalfAsManyMicroBatchesAsRanks) {
  for (const char* name : {"interleaved", "breadth-first", "interleaved-zb"}) {
    for (int p = 2; p <= 16; ++p) {
      for (int v = 2; v <= 4; ++v) {
        const int m = p / 2;
        EXPECT_NEAR(
            makespan_of(
                make_schedule({.name = name, .pipeline = p, .micro_batches = m, .chunks = v}), {}),
            schedule_bound(name, p, v, {}, m).seconds(m), 1e-9)
            << name << " p" << p << " v" << v;
      }
    }
  }
}

}  // namespace
}  // namespace trireme
