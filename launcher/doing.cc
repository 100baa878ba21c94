#include "launcher/doing.h"

#include <fmt/format.h>

#include <array>

#include "planner/plan/schedule.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

// In the order of StatusPage::Doing: the name in records, and the words in a sentence.
struct DoingText {
  const char* name;
  const char* words;
};
constexpr std::array<DoingText, 10> kDoings{
    {{"starting", "starting up"},
     {"loading", "loading weights or data"},
     {"idle", "between two ops"},
     {"op", "computing"},
     {"tensor_collective", "in a tensor-parallel collective"},
     {"receiving", "receiving"},
     {"reducing", "reducing gradients"},
     {"optimizer", "in the optimizer"},
     {"saving", "saving a checkpoint"},
     {"leaving", "leaving"}}};

const char* words_of(const std::string& name) {
  for (const DoingText& doing : kDoings) {
    if (name == doing.name) {
      return doing.words;
    }
  }
  return "doing something unknown";
}

const char* kind_word(char letter) {
  switch (letter) {
    case 'F':
      return "forward";
    case 'B':
      return "backward";
    case 'I':
      return "input gradient";
    default:
      return "weight gradient";
  }
}

// The page is written by a process that may have gone wrong: any number may stand in it.
bool known_op_kind(int kind) {
  return kind >= 0 && kind <= static_cast<int>(OpKind::backward_weight);
}

}  // namespace

Json doing_of(const StatusPage& page) {
  Json doing = Json::object();
  const int what = page.doing;
  doing["doing"] = what >= 0 && what < static_cast<int>(kDoings.size())
                       ? kDoings[static_cast<size_t>(what)].name
                       : "unknown";
  if (const int step = page.step; step >= 0) {
    doing["step"] = step;
  }
  if (const int kind = page.op_kind; known_op_kind(kind)) {
    const Op op{static_cast<OpKind>(kind), false, page.stage, page.micro_batch};
    doing["op"] = to_string(op);
    doing["kind"] = std::string(1, letter_of(op.kind));
    doing["stage"] = op.stage;
    doing["micro_batch"] = op.micro_batch;
  }
  if (const int peer = page.peer; peer >= 0) {
    doing["peer"] = peer;
  }
  return doing;
}

std::string describe_doing(const Json& doing) try {
  if (!doing.is_object() || !doing.contains("doing")) {
    return "";
  }
  const std::string what = doing["doing"];
  std::string text;
  if (doing.contains("step")) {
    text += fmt::format("in step {}, ", doing["step"].get<int>());
  }
  text += words_of(what);
  if (doing.contains("peer")) {
    text += fmt::format(" with r{}", doing["peer"].get<int>());
  }
  const bool in_op = what == "op" || what == "tensor_collective" || what == "receiving";
  if (doing.contains("op")) {
    text += fmt::format("{} op {} ({} of stage {} on micro-batch {})", in_op ? "," : ", last",
                        doing["op"].get<std::string>(),
                        kind_word(doing["kind"].get<std::string>().at(0)),
                        doing["stage"].get<int>(), doing["micro_batch"].get<int>());
  }
  return text;
} catch (const std::exception&) {
  return "";
}

}  // namespace trireme
