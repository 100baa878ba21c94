#include "launcher/postmortem.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "launcher/doing.h"
#include "planner/plan/protocol.h"
#include "topology/base/check.h"

namespace trireme {

using Json = nlohmann::json;

Postmortem::Postmortem(std::vector<std::string> names, std::vector<std::string> nodes)
    : names_(std::move(names)), nodes_(std::move(nodes)), ranks_(names_.size()) {}

Postmortem::RankCase& Postmortem::heard(int rank) {
  RankCase& entry = ranks_.at(static_cast<size_t>(rank));
  if (entry.order == 0) {
    entry.order = ++reports_;
  }
  return entry;
}

void Postmortem::rank_said_failed(int rank, const std::string& kind, const std::string& message,
                                  std::optional<int> lost) {
  RankCase& entry = heard(rank);
  entry.lost = lost;
  entry.error_kind = kind;
  entry.error_message = message;
}

void Postmortem::rank_done(int rank) {
  ranks_.at(static_cast<size_t>(rank)).done = true;
}

void Postmortem::rank_ended(int rank, RankEnd end) {
  RankCase& entry = heard(rank);
  entry.silent_seconds = std::max(entry.silent_seconds, end.silent_seconds);
  if (entry.doing.is_null()) {
    entry.doing = end.doing;
  }
  entry.end = std::move(end);
}

void Postmortem::rank_hung(int rank, double silent_seconds, const Json& doing) {
  RankCase& entry = heard(rank);
  entry.hung = true;
  entry.silent_seconds = silent_seconds;
  entry.doing = doing;
}

void Postmortem::agent_failed(const std::string& node, const std::string& why) {
  AgentCase& agent = agents_[node];
  if (agent.order == 0) {
    agent.order = ++reports_;
    agent.why = why;
  }
}

void Postmortem::agent_ended(const std::string& node, const ExitStatus& status) {
  if (const auto agent = agents_.find(node); agent != agents_.end()) {
    agent->second.status = status;
  }
}

Postmortem::Class Postmortem::class_of(const RankCase& rank) {
  const bool ended_by_us = rank.end && rank.end->status.by_us;
  if (rank.error_kind == "peer_lost") {
    return Class::peer_lost;
  }
  if (rank.hung || !rank.error_kind.empty()) {
    return Class::own;
  }
  if (!rank.end) {
    return Class::none;
  }
  if (ended_by_us) {
    return rank.silent_seconds >= kSuspectSeconds ? Class::suspect : Class::teardown;
  }
  return rank.end->status.clean() && rank.done ? Class::none : Class::own;
}

// Where the first report of a lost peer leads, from rank to rank, until one has lost nobody.
std::optional<int> Postmortem::missed_rank() const {
  const auto first_report = [this] {
    const auto before = [](const RankCase& a, const RankCase& b) {
      return std::pair(!a.lost, a.order) < std::pair(!b.lost, b.order);
    };
    return std::min_element(ranks_.begin(), ranks_.end(), before);
  };
  const RankCase* rank = ranks_.empty() ? nullptr : &*first_report();
  std::optional<int> lost = rank == nullptr ? std::nullopt : rank->lost;
  for (size_t links = 0; lost && links < ranks_.size(); ++links) {
    rank = &ranks_.at(static_cast<size_t>(*lost));
    if (!rank->lost) return rank->done ? std::nullopt : lost;
    lost = rank->lost;
  }
  return std::nullopt;  // each has lost another: they tell nothing
}

Postmortem::Class Postmortem::class_of(int rank) const {
  const Class c = class_of(ranks_[static_cast<size_t>(rank)]);
  const bool unexplained = c == Class::teardown || c == Class::none;
  return unexplained && missed_rank() == rank ? Class::missed : c;
}

std::string Postmortem::cause_of(int rank) const {
  const RankCase& entry = ranks_[static_cast<size_t>(rank)];
  if (class_of(rank) != Class::missed) return cause_of(entry);
  std::string cause = "was lost by";
  for (size_t r = 0; r < ranks_.size(); ++r) {
    if (ranks_[r].lost == rank) cause += fmt::format(" r{}", r);
  }
  return cause + (entry.end ? "; " + describe(entry.end->status) : "; its end was not seen");
}

bool Postmortem::something_failed() const {
  const auto failed = [](const RankCase& rank) {
    const Class c = class_of(rank);
    return c == Class::own || c == Class::peer_lost;
  };
  return !agents_.empty() || std::any_of(ranks_.begin(), ranks_.end(), failed);
}

std::string Postmortem::cause_of(const RankCase& rank) {
  const bool ended_by_us = rank.end && rank.end->status.by_us;
  if (rank.hung || (ended_by_us && class_of(rank) == Class::suspect)) {
    return fmt::format("stopped answering: silent for {:.1f} s, {}", rank.silent_seconds,
                       rank.end ? "ended by trireme" : "still there");
  }
  std::string cause = rank.error_message;
  if (rank.end && (cause.empty() || !ended_by_us)) {
    cause += (cause.empty() ? "" : "; ") + describe(rank.end->status);
    if (rank.end->status.clean() && !rank.done) {
      cause += " before its work was done";
    }
  }
  return cause;
}

std::string Postmortem::cause_of(const AgentCase& agent) {
  if (!agent.status) {
    return agent.why;
  }
  return fmt::format("{}; its process {}{}", agent.why, agent.status->signal != 0 ? "was " : "",
                     describe(*agent.status));
}

std::string Postmortem::sentence(int rank) const {
  const auto index = static_cast<size_t>(rank);
  return fmt::format("{}: {}", names_[index], cause_of(rank));
}

std::optional<int> Postmortem::worst_rank() const {
  std::optional<int> worst;
  std::pair least{Class::teardown, 0};
  for (int rank = 0; rank < static_cast<int>(ranks_.size()); ++rank) {
    const std::pair place{class_of(rank), ranks_[static_cast<size_t>(rank)].order};
    if (place < least) {
      least = place;
      worst = rank;
    }
  }
  return worst;
}

const std::pair<const std::string, Postmortem::AgentCase>* Postmortem::worst_agent() const {
  const auto before = [](const auto& a, const auto& b) { return a.second.order < b.second.order; };
  const auto worst = std::min_element(agents_.begin(), agents_.end(), before);
  return worst == agents_.end() ? nullptr : &*worst;
}

Failure Postmortem::rank_failure(int rank, const RunDirectory& run) const {
  const auto index = static_cast<size_t>(rank);
  const RankCase& entry = ranks_[index];
  return {.subject = names_[index],
          .rank = rank,
          .node = nodes_[index],
          .cause = cause_of(rank),
          .bad_input = entry.error_kind == "bad_input",
          .doing = entry.doing,
          .log_tail = entry.end ? entry.end->log_tail : std::vector<std::string>{},
          .log = run.rank_log(Rank(rank)),
          .cascade = {},
          .teardown = {}};
}

// An agent that is lost after the controller stood still did what it must.
Failure Postmortem::agent_failure(const std::string& node, const AgentCase& agent,
                                  const RunDirectory& run) const {
  Failure failure;
  failure.node = node;
  failure.log = run.agent_log(node);
  if (stood_still_ > 0) {
    failure.subject = "the controller";
    failure.cause = fmt::format(
        "stood still for {:.0f} s, stopped or with its machine asleep; its agents took it for gone "
        "and ended their ranks",
        stood_still_);
  } else {
    failure.subject = "the agent of " + node;
    failure.cause = cause_of(agent);
  }
  return failure;
}

Failure Postmortem::verdict(const RunDirectory& run) const {
  TRIREME_CHECK(something_failed());
  const auto rank = worst_rank();
  const auto* agent = worst_agent();
  const RankCase* worst = rank ? &ranks_[static_cast<size_t>(*rank)] : nullptr;
  const bool rank_is_first =
      worst != nullptr &&
      (agent == nullptr || (class_of(*rank) == Class::own && worst->order < agent->second.order));
  Failure failure;
  if (rank_is_first) {
    failure = rank_failure(*rank, run);
  } else {
    failure = agent_failure(agent->first, agent->second, run);
  }
  std::vector<std::pair<int, std::string>> cascade;
  for (size_t r = 0; r < ranks_.size(); ++r) {
    const int number = static_cast<int>(r);
    const Class c = class_of(number);
    if (c == Class::teardown) {
      failure.teardown.push_back(names_[r]);
    } else if (c != Class::none && failure.rank != number) {
      cascade.emplace_back(ranks_[r].order, sentence(number));
    }
  }
  for (const auto& [node, other] : agents_) {
    if (failure.rank || node != failure.node) {
      cascade.emplace_back(other.order, fmt::format("the agent of {}: {}", node, cause_of(other)));
    }
  }
  std::sort(cascade.begin(), cascade.end());
  for (auto& [order, text] : cascade) {
    failure.cascade.push_back(std::move(text));
  }
  return failure;
}

Json to_json(const Failure& failure) {
  Json json = {{"subject", failure.subject},   {"node", failure.node},
               {"cause", failure.cause},       {"doing", failure.doing},
               {"log_tail", failure.log_tail}, {"log", failure.log},
               {"cascade", failure.cascade},   {"teardown", failure.teardown}};
  if (failure.rank) {
    json["rank"] = *failure.rank;
  }
  return json;
}

std::string to_text(const Failure& failure) {
  constexpr size_t kShown = 4;  // of the cascade: the rest says the same and stands in events.jsonl
  std::string text;
  if (!failure.log_tail.empty()) {
    text += fmt::format("last lines of {}:\n", failure.log);
    for (const std::string& line : failure.log_tail) {
      text += "  | " + line + "\n";
    }
  }
  for (size_t i = 0; i < std::min(kShown, failure.cascade.size()); ++i) {
    text += "followed by " + failure.cascade[i] + "\n";
  }
  if (failure.cascade.size() > kShown) {
    text += fmt::format("followed by {} more\n", failure.cascade.size() - kShown);
  }
  if (!failure.teardown.empty()) {
    text += fmt::format("ended the other {} rank(s)\n", failure.teardown.size());
  }
  text += fmt::format("the run failed: {} {}\n", failure.subject, failure.cause);
  if (const std::string doing = describe_doing(failure.doing); !doing.empty()) {
    text += fmt::format("it was {}\n", doing);
  }
  return text;
}

}  // namespace trireme
