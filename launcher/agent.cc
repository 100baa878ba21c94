#include "launcher/agent.h"

#include <fmt/format.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>
#include <utility>

#include "launcher/agent_state.h"
#include "launcher/asio_loop.h"
#include "launcher/clock.h"
#include "launcher/doing.h"
#include "launcher/events.h"
#include "launcher/framed_socket.h"
#include "launcher/greeting.h"
#include "launcher/rank_process.h"
#include "planner/plan/protocol.h"
#include "planner/plan/run_directory.h"
#include "topology/base/error.h"
#include "topology/base/say.h"

namespace trireme {
namespace {

constexpr int kConnectAttempts =
    100;  // one per tick: the controller's seats may be taken by strangers for a while
constexpr size_t kTailLines = 20;
// How long the last words of a dead rank may take, and how long a rank may live on after it closed
// its control socket.
constexpr double kDrainSeconds = 0.2;
constexpr double kSilentExitSeconds = 5;

std::string rank_program() {
  const char* program = std::getenv("TRIREME_RANK_PROGRAM");
  return program != nullptr
             ? program
             : std::filesystem::path(program_path()).replace_filename("trireme-rank");
}

// One rank of this node. It is over when its process has ended and everything it said before has
// been read.
struct Seat {
  Seat(asio::io_context& io, RankProcess p)
      : process(std::move(p)),
        control(io, process.take_control_socket(), kMaxRankFrameBytes),
        ended(io, dup(process.process().ended_descriptor())) {}
  RankProcess process;
  FramedSocket control;
  asio::posix::stream_descriptor ended;
  std::optional<double> silent_since;  // when the control socket closed
  std::optional<double> ended_at;
  bool reported = false;
};

class Agent {
 public:
  explicit Agent(const AgentOrder& order)
      : order_(order),
        directory_{order.run_directory},
        log_(spdlog::basic_logger_st("agent", directory_.agent_log(order.node))),
        greeting_(order_.secret, {order.node, order.generation, getpid()}),
        ticker_(io_, [this] { tick(); }),
        state_(monotonic_seconds()) {
    log_->flush_on(spdlog::level::info);
  }

  int run() {
    log_->info("agent of {}, process {}", order_.node, getpid());
    connect();
    ticker_.start();
    io_.run();
    log_->info("leaving with exit code {}", exit_code_);
    return exit_code_;
  }

 private:
  void connect() {
    ++attempts_;
    tcp::socket socket(io_);
    error_code e;
    socket.connect({asio::ip::make_address(order_.controller_address), order_.controller_port}, e);
    if (e) {
      give_up(fmt::format("cannot reach the controller: {}", e.message()));
      return;
    }
    send_at_once(socket);
    controller_.emplace(io_, socket.release(), kMaxGreetingBytes);
    controller_->start([this](const Json& message) { hear(message); },
                       [this](const FramedSocket::End& end) { lose_controller(end.why); });
  }

  void hear(const Json& message) {
    if (welcome_) {
      feed(ControllerSaid{message});
    } else if (!std::exchange(challenged_, true)) {
      controller_->send(greeting_.hello(message));
    } else {
      greeting_.check(message);
      welcome_ = true;
      controller_->set_frame_limit(kMaxFrameBytes);
      log_->info("the controller and this agent have proved themselves to each other");
    }
  }

  void lose_controller(const std::string& why) {
    controller_.reset();
    if (welcome_) {
      feed(ControllerLost{why});
    } else if (challenged_ || attempts_ >= kConnectAttempts) {
      give_up(why);
    }  // else the next tick tries again
  }

  void give_up(const std::string& why) {
    const std::string line =
        fmt::format("the agent of {} found no controller: {}", order_.node, why);
    log_->error(line);
    say_in_passing(stderr, fmt::format("trireme: {}\n", line));
    exit_code_ = 1;
    io_.stop();
  }

  void tick() {
    if (!controller_ && !welcome_) {
      connect();
    }
    for (auto& [rank, seat] : seats_) {
      watch(rank, seat);
    }
    feed(AgentTick{});
  }

  void feed(const AgentEvent& event) {
    for (AgentAction& action : state_.handle(event, monotonic_seconds())) {
      std::visit([this](auto& a) { apply(a); }, action);
    }
  }

  void apply(SpawnRank& action) {
    try {
      const RankProcess::Spec spec{rank_program(), action.run_directory, action.resume,
                                   order_.listen, Rank(action.rank)};
      const auto [place, fresh] = seats_.try_emplace(action.rank, io_, RankProcess::start(spec));
      Seat& seat = place->second;
      attach(action.rank, seat);
      const pid_t pid = seat.process.process().pid();
      log_->info("r{} started as process {}", action.rank, pid);
      feed(RankSpawned{action.rank, pid});
    } catch (const Error& error) {
      log_->error("r{}: {}", action.rank, error.what());
      feed(SpawnFailed{action.rank, error.what()});
    }
  }

  void attach(int rank, Seat& seat) {
    seat.control.start(
        [this, rank](const Json& message) {
          feed(RankSaid{rank, message});
        },
        [this, rank, &seat](const FramedSocket::End& end) {
          seat.silent_since = monotonic_seconds();
          if (end.nonsense) {
            rank_failed(rank, "it talked nonsense on its control socket: " + end.why);
          }
          watch(rank, seat);
        });
    seat.ended.async_wait(asio::posix::stream_descriptor::wait_read,
                          [this, rank, &seat](error_code e) {
                            if (!e) {
                              watch(rank, seat);
                            }
                          });
  }

  void watch(int rank, Seat& seat) {
    const auto status = seat.process.process().poll();
    const double now = monotonic_seconds();
    if (seat.reported) {
      return;
    }
    if (!status) {
      if (seat.silent_since && now - *seat.silent_since >= kSilentExitSeconds) {
        seat.silent_since.reset();
        rank_failed(rank, "it closed its control socket and lived on");
      }
      return;
    }
    if (!seat.ended_at) {
      seat.ended_at = now;
    }
    if (seat.silent_since || now - *seat.ended_at >= kDrainSeconds) {
      seat.reported = true;
      log_->info("r{} {}", rank, describe(*status));
      feed(RankEnded{rank, *status, doing_of(seat.process.status()),
                     tail_of(directory_.rank_log(Rank(rank)), kTailLines)});
    }
  }

  void rank_failed(int rank, const std::string& why) {
    feed(RankSaid{rank, {{"type", "failed"}, {"kind", "failed"}, {"message", why}}});
  }

  void apply(SignalRank& action) {
    if (const auto seat = seats_.find(action.rank); seat != seats_.end()) {
      log_->info("sending {} to r{}", signal_name(action.signal), action.rank);
      seat->second.process.process().signal(action.signal);
    }
  }

  void apply(SendToController& action) { tell_controller(action.message); }

  void apply(ReportSilence& action) {
    log_->warn("r{} has said nothing for {:.1f} s", action.rank, action.seconds);
    tell_controller({{"type", "silent"},
                     {"rank", action.rank},
                     {"seconds", action.seconds},
                     {"doing", doing_of(seats_.at(action.rank).process.status())}});
  }

  void tell_controller(const Json& message) {
    if (controller_ && welcome_) {
      controller_->send(message);
    }
  }

  void apply(SendToRank& action) {
    if (const auto seat = seats_.find(action.rank); seat != seats_.end()) {
      seat->second.control.send(action.message);
    }
  }

  void apply(BlameController& action) {
    const std::string line =
        fmt::format("the controller is gone ({}); the agent of {} killed its {} rank(s)",
                    action.why, order_.node, action.killed.size());
    log_->error(line);
    say_in_passing(stderr, fmt::format("trireme: the run failed: {}\n", line));
    try {
      EventLog(directory_.events(), [&](const std::string& complaint) { log_->error(complaint); })
          .record({{"event", "failure"},
                   {"subject", "the controller"},
                   {"node", order_.node},
                   {"cause", action.why},
                   {"teardown", action.killed}});
    } catch (const Error& error) {
      log_->error("{}", error.what());
    }
  }

  void apply(LeaveRun& action) {
    exit_code_ = action.exit_code;
    io_.stop();
  }

  AgentOrder order_;
  RunDirectory directory_;
  std::shared_ptr<spdlog::logger> log_;
  AgentGreeting greeting_;
  asio::io_context io_{1};
  Ticker ticker_;
  AgentState state_;
  std::optional<FramedSocket> controller_;
  std::map<int, Seat> seats_;  // by rank; stable addresses
  int attempts_ = 0;
  bool challenged_ = false;
  bool welcome_ = false;
  int exit_code_ = 0;
};

}  // namespace

int run_agent(const AgentOrder& order) {
  return Agent(order).run();
}

}  // namespace trireme
