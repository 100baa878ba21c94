#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "launcher/controller_state.h"
#include "launcher/events.h"
#include "planner/plan/protocol.h"
#include "topology/base/error.h"

namespace trireme {

using Json = nlohmann::json;

// What each event changes in the controller's knowledge. What follows from it is the table's
// business (controller_state.cc).

void ControllerState::on(const AgentConnected& event) {
  Agent& agent = agents_.at(static_cast<size_t>(event.node));
  agent.connected = true;
  agent.pid = event.pid;
  agent.last_heard = now_;
  record({{"event", "agent_connected"},
          {"node", setup_.nodes[static_cast<size_t>(event.node)]},
          {"pid", event.pid}});
}

void ControllerState::on(const AgentLost& event) {
  lose_agent(event.node, event.why);
}

void ControllerState::on(const AgentEnded& event) {
  agents_.at(static_cast<size_t>(event.node)).process_ended = true;
  lose_agent(event.node, "it ended");
  const std::string& node = setup_.nodes[static_cast<size_t>(event.node)];
  postmortem_.agent_ended(node, event.status);
  record({{"event", "agent_ended"}, {"node", node}, {"status", to_json(event.status)}});
}

void ControllerState::lose_agent(int node, const std::string& why) {
  Agent& agent = agents_.at(static_cast<size_t>(node));
  if (std::exchange(agent.lost, true)) {
    return;
  }
  const std::string& name = setup_.nodes[static_cast<size_t>(node)];
  record({{"event", "agent_lost"}, {"node", name}, {"cause", why}});
  if (phase_ != ControllerPhase::leaving && phase_ != ControllerPhase::finished) {
    const std::string pid = agent.connected ? fmt::format(" (pid {})", agent.pid) : "";
    postmortem_.agent_failed(name, fmt::format("went away{}: {}", pid, why));
  }
  for (size_t r = 0; r < ranks_.size(); ++r) {  // they die with it: PR_SET_PDEATHSIG, or its lease
    ranks_[r].gone = ranks_[r].gone || setup_.node_of_rank[r] == node;
  }
}

void ControllerState::on(const AgentSaid& event) {
  Agent& agent = agents_.at(static_cast<size_t>(event.node));
  agent.last_heard = now_;
  agent.suspected = false;
  const std::string type = event.message.at("type");
  if (type == "alive") {
    return;
  }
  const int rank = event.message.at("rank");
  if (setup_.node_of_rank.at(static_cast<size_t>(rank)) != event.node) {
    throw Error(ErrorKind::failed, fmt::format("it spoke for r{}, which is not its own", rank));
  }
  if (type == "rank") {
    rank_said(rank, event.message.at("message"));
  } else if (type == "spawned") {
    Json started = rank_event("rank_spawned", rank);
    started["pid"] = event.message.at("pid");
    ranks_[static_cast<size_t>(rank)].pid = event.message.at("pid");
    record(std::move(started));
  } else if (type == "ended") {
    rank_ended(rank, event.message);
  } else if (type == "silent") {
    const double seconds = event.message.at("seconds");
    postmortem_.rank_hung(rank, seconds, event.message.at("doing"));
    Json silent = rank_event("rank_silent", rank);
    silent["seconds"] = seconds;
    record(std::move(silent));
  }
}

void ControllerState::on(const StopAsked& event) {
  ++stops_pending_;
  if (stop_signal_ == 0) {
    stop_signal_ = event.signal;
  }
  record({{"event", "stop_asked"}, {"signal", event.signal}});
}

void ControllerState::on(const ControllerTick&) {
  // A controller that was itself stopped for a while (Ctrl-Z, a debugger) must not take that for
  // the agents' silence.
  const double missed = std::max(0.0, now_ - last_tick_ - kHeartbeatSeconds);
  last_tick_ = now_;
  for (size_t n = 0; n < agents_.size(); ++n) {
    Agent& agent = agents_[n];
    if (!agent.connected || agent.lost) {
      continue;
    }
    agent.last_heard += missed;
    const double silent = now_ - agent.last_heard;
    if (silent >= kDeadSeconds) {
      lose_agent(static_cast<int>(n), fmt::format("it said nothing for {:.0f} s", silent));
    } else if (silent >= kSuspectSeconds && !std::exchange(agent.suspected, true)) {
      record({{"event", "agent_suspected"}, {"node", setup_.nodes[n]}, {"seconds", silent}});
    }
  }
  if (now_ >= next_beat_) {
    next_beat_ = now_ + kHeartbeatSeconds;
    send_all({{"type", "alive"}});
  }
  for (const Store::Waiter& waiter : store_.expire(now_)) {
    answer(waiter, "error", "timed out before any rank set it");
  }
}

// The agent passes on what it does not look into: nonsense in it is the rank's.
void ControllerState::rank_said(int rank, const Json& message) try {
  hear_rank(rank, message);
} catch (const std::exception& error) {
  postmortem_.rank_said_failed(rank, "failed",
                               fmt::format("it talked nonsense: {}", printable(error.what())));
}

void ControllerState::hear_rank(int rank, const Json& message) {
  const std::string type = message.at("type");
  if (type == "set") {
    rank_set(rank, message);
  } else if (type == "get") {
    rank_got(rank, message);
  } else if (type == "hello") {
    Json hello = rank_event("rank_connected", rank);
    hello["pid"] = message.at("pid");
    record(std::move(hello));
  } else if (type == "started") {
    ranks_[static_cast<size_t>(rank)].started = true;
    record(rank_event("rank_started", rank));
  } else if (type == "step") {
    steps_done(book_.metrics(message.at("metrics")));
  } else if (type == "busy") {
    steps_done(book_.busy(message.at("step"), message.at("seconds"), message.at("window")));
  } else if (type == "checkpoint") {
    checkpoint_saved(rank, message);
  } else if (type == "note") {
    const std::string text = printable(message.at("text"));
    say(fmt::format("note from r{}: {}", rank, text));
    Json note = rank_event("note", rank);
    note["text"] = text;
    record(std::move(note));
  } else if (type == "failed") {
    std::optional<int> lost;
    if (message.contains("peer")) {
      lost = message["peer"].get<int>();
      if (*lost < 0 || static_cast<size_t>(*lost) >= ranks_.size()) {
        throw Error(ErrorKind::failed,
                    fmt::format("r{} lost r{}, which there is not", rank, *lost));
      }
    }
    postmortem_.rank_said_failed(rank, message.at("kind"), printable(message.at("message")), lost);
    Json failed = rank_event("rank_failed", rank);
    failed["kind"] = message["kind"];
    failed["cause"] = message["message"];
    if (lost) {
      failed["lost"] = *lost;
    }
    record(std::move(failed));
  } else if (type == "done") {
    rank_done(rank, message);
  }
}

void ControllerState::rank_set(int rank, const Json& message) try {
  const std::string value = message.at("value");
  for (const Store::Waiter& waiter : store_.set(message.at("key"), value)) {
    answer(waiter, "value", value);
  }
} catch (const Error& error) {
  postmortem_.rank_said_failed(rank, "failed", error.what());
}

void ControllerState::rank_got(int rank, const Json& message) {
  Store::Waiter waiter{.rank = Rank(rank),
                       .id = message.at("id"),
                       .deadline = now_ + message.at("timeout_s").get<double>(),
                       .key = message.at("key")};
  if (const std::string* value = store_.find(waiter.key)) {
    answer(waiter, "value", *value);
    return;
  }
  try {
    store_.wait(std::move(waiter));
  } catch (const Error& error) {
    postmortem_.rank_said_failed(rank, "failed", error.what());
  }
}

void ControllerState::rank_ended(int rank, const Json& message) {
  RankEnd end{.status = parse_exit_status(message.at("status")),
              .silent_seconds = message.at("silent_seconds"),
              .doing = message.at("doing"),
              .log_tail = message.at("log_tail")};
  Json ended = rank_event("rank_ended", rank);
  ended["status"] = message["status"];
  ended["doing"] = end.doing;
  record(std::move(ended));
  ranks_[static_cast<size_t>(rank)].gone = true;
  postmortem_.rank_ended(rank, std::move(end));
}

void ControllerState::rank_done(int rank, const Json& message) {
  RankSeat& seat = ranks_[static_cast<size_t>(rank)];
  seat.stopped = message.at("stopped");
  postmortem_.rank_done(rank);
  if (rank == 0) {
    outcome_.summary = message.at("summary");
  }
  Json done = rank_event("rank_done", rank);
  done["step"] = message.at("step");
  done["stopped"] = seat.stopped;
  record(std::move(done));
}

void ControllerState::checkpoint_saved(int rank, const Json& message) {
  outcome_.checkpoint = message.at("path");
  outcome_.checkpoint_step = message.at("step");
  Json saved = rank_event("checkpoint", rank);
  saved["step"] = outcome_.checkpoint_step;
  saved["path"] = outcome_.checkpoint;
  record(std::move(saved));
}

}  // namespace trireme
