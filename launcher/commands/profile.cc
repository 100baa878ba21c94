#include "launcher/commands/profile.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "launcher/clock.h"
#include "launcher/commands/common.h"
#include "launcher/controller.h"
#include "launcher/preflight.h"
#include "launcher/process.h"
#include "launcher/progress.h"
#include "planner/profile/repeated.h"
#include "planner/profile/series.h"
#include "planner/profile/trace_sample.h"
#include "topology/base/error.h"
#include "topology/base/say.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;

struct ProfileCommand {
  PlanningInput input;
  std::string output;
  bool only_pinned = false;
  bool json = false;
};

// A directory that goes with its owner.
class ScratchDirectory {
 public:
  ScratchDirectory() {
    std::string name = (fs::temp_directory_path() / "trireme-profile-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) {
      throw Error(ErrorKind::failed, fmt::format("{}: cannot be made", name));
    }
    path_ = name;
  }
  ~ScratchDirectory() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Hears SIGINT and SIGTERM through the whole series: also between runs, and at the end of one, when
// its controller no longer acts on them.
class StopListener {
 public:
  StopListener() {
    signals_.async_wait([this](const boost::system::error_code& error, int signal) {
      if (!error) signal_ = signal;
    });
  }
  // The signal that came, or 0.
  int heard() {
    io_.poll();
    return signal_;
  }

 private:
  boost::asio::io_context io_{1};
  boost::asio::signal_set signals_{io_, SIGINT, SIGTERM};
  int signal_ = 0;
};

class Silence : public RunObserver {
 public:
  void say(const std::string& /*text*/) override {}
  void step(const nlohmann::json& /*metrics*/) override {}
};

struct MeasuredRun {
  Plan plan;
  RunDirectory directory;
};

// Stopped by a signal: what was started is gone.
struct Stopped {
  int exit_code = 0;
};

// A rank with one thread and no tensor peers waits for nothing in an op: where it did not get a
// whole core, something else did.
std::string disturbance(const std::vector<RunSample>& samples) {
  double least = 1;
  for (const RunSample& sample : samples) {
    if (sample.tensor == 1 && sample.threads == 1) least = std::min(least, sample.cores);
  }
  if (least > 0.9) return "";
  return fmt::format(
      "this machine was busy with other things: ranks got {:.0f} % of their cores at worst; a "
      "profile of a quiet machine predicts better\n",
      100 * least);
}

template <class Sample>
size_t unsettled(const std::vector<Repeated<Sample>>& runs) {
  return static_cast<size_t>(
      std::count_if(runs.begin(), runs.end(), [](const auto& run) { return !run.settled(); }));
}

template <class Sample>
std::vector<Sample> typical(const std::vector<Repeated<Sample>>& runs) {
  std::vector<Sample> samples;
  for (const Repeated<Sample>& run : runs) samples.push_back(run.typical());
  return samples;
}

class Profiler {
 public:
  Profiler(const Job& job, const Cluster& cluster) : job_(job), cluster_(cluster) {
    cluster_.groups.resize(1);
  }

  Profile make(ProfileExtent extent) {
    const NodeGroup& nodes = cluster_.groups.front();
    const ProfileSeries series = profile_series(job_, nodes, extent);
    Profile profile;
    profile.model = job_.model;
    profile.dtype = job_.training.dtype;
    profile.reduction = job_.training.reduction_on(true);
    profile.cores = nodes.cores > 0 ? nodes.cores : nodes.devices;
    std::vector<Repeated<RunSample>> ops(series.ops.size());
    std::vector<Repeated<MessageSample>> messages(series.messages.size());
    // Rounds through all of them: what disturbs one run may be over when its turn comes again.
    for (int round = 1;; ++round) {
      number_ = 0;
      total_ = unsettled(ops) + unsettled(messages);
      if (total_ == 0) break;
      say(stderr, "round {}\n", round);
      for (size_t i = 0; i < ops.size(); ++i) {
        if (!ops[i].settled()) measure_ops(series.ops[i], profile.cores, ops[i]);
      }
      for (size_t i = 0; i < messages.size(); ++i) {
        if (!messages[i].settled()) measure_messages(series.messages[i], messages[i]);
      }
    }
    const std::vector<RunSample> samples = typical(ops);
    say(stderr, "{}", disturbance(samples));
    profile.measured = fit_parts(samples, head_share(job_, nodes));
    profile.end = fit_step_end(samples);
    profile.message = fit_message(typical(messages), profile.end);
    return profile;
  }

 private:
  void measure_ops(const ProfileRun& run, int cores, Repeated<RunSample>& result) {
    const MeasuredRun done = measure(run);
    RunSample sample = run_sample(done.directory, done.plan, run.threads);
    sample.cores = std::min<double>(sample.cores, cores);
    result.add(sample, sample.op.forward + sample.op.backward());
    fs::remove_all(done.directory.root);
  }

  void measure_messages(const ProfileRun& run, Repeated<MessageSample>& result) {
    const MeasuredRun done = measure(run);
    const MessageSample sample = message_sample(done.directory, done.plan);
    result.add(sample, sample.hop_seconds);
    fs::remove_all(done.directory.root);
  }

  MeasuredRun measure(const ProfileRun& run) {
    const Layout shape{.tensor = *run.job.pins.tensor,
                       .pipeline = *run.job.pins.pipeline,
                       .data = *run.job.pins.data};
    say(stderr, "run {} of {}: {} layers, tensor {} x pipeline {} x data {}, micro-batch {}\n",
        ++number_, total_, run.job.model.layers, shape.tensor, shape.pipeline, shape.data,
        *run.job.pins.micro_batch);
    PlanOptions options;
    options.top = 1;
    MeasuredRun done{find_plan(run.job, cluster_, options).plan,
                     {fmt::format("{}/{}", scratch_.path(), number_)}};
    check_runnable(done.plan);
    write_run_directory(done.directory, done.plan);
    Silence nobody;
    const auto starter = make_local_starter(program_path());
    stop_if_asked();
    const RunOutcome outcome =
        Controller(controller_setup(done.plan, done.directory.root, ""), *starter, nobody).run();
    stop_if_asked();
    if (outcome.failure) throw Error(ErrorKind::failed, to_text(*outcome.failure));
    return done;
  }

  void stop_if_asked() {
    if (const int signal = stop_.heard(); signal != 0) throw Stopped{128 + signal};
  }

  Job job_;
  Cluster cluster_;
  ScratchDirectory scratch_;
  StopListener stop_;
  size_t number_ = 0, total_ = 0;
};

std::string summary(const Profile& profile, const std::string& path, double seconds) {
  std::string text = fmt::format("profile of {} kinds of op in {}, written to {}\n",
                                 profile.measured.size(), short_duration(seconds), path);
  text += "  tensor  threads  micro-batch  layer forward  input gradient  weight gradient  cores\n";
  for (const Profile::MeasuredParts& row : profile.measured) {
    const StageCost& layer = row.parts.layer;
    text +=
        fmt::format("  {:>6}  {:>7}  {:>11}  {:>10.3f} ms  {:>11.3f} ms  {:>12.3f} ms  {:>5.2f}\n",
                    row.tensor, row.threads, row.micro_batch, 1e3 * layer.forward,
                    1e3 * layer.input, 1e3 * layer.weight, row.parts.cores);
  }
  const Profile::Message& message = profile.message;
  text += fmt::format("  message     {:.1f} us + {:.3f} us per kB until the next rank starts\n",
                      1e6 * message.hop_seconds, 1e9 * message.hop_seconds_per_byte);
  const Profile::StepEnd& end = profile.end;
  text += fmt::format(
      "  step's end  {:.2f} ms, {:.2f} ms per peer, {:.2f} ns per parameter, {:.2f} ns per byte "
      "exchanged\n",
      1e3 * end.seconds, 1e3 * end.seconds_per_peer, 1e9 * end.seconds_per_parameter,
      1e9 * end.seconds_per_exchanged_byte);
  return text;
}

nlohmann::ordered_json to_json(const StageCost& cost) {
  return {{"forward", cost.forward}, {"input", cost.input}, {"weight", cost.weight}};
}

nlohmann::ordered_json to_json(const Profile& profile, const std::string& path, double seconds) {
  nlohmann::ordered_json json = {{"profile", path}, {"seconds", seconds}, {"cores", profile.cores}};
  for (const Profile::MeasuredParts& row : profile.measured) {
    json["measured"].push_back({{"tensor", row.tensor},
                                {"micro_batch", row.micro_batch},
                                {"threads", row.threads},
                                {"cores", row.parts.cores},
                                {"layer", to_json(row.parts.layer)},
                                {"embedding", to_json(row.parts.embedding)},
                                {"head", to_json(row.parts.head)}});
  }
  return json;
}

// Rather now than after a minute of measuring.
void check_writable(const std::string& path) {
  const fs::path folder = fs::absolute(path).parent_path();
  if (access(folder.c_str(), W_OK) == 0 && !fs::is_directory(path)) return;
  throw Error(
      ErrorKind::bad_input,
      fmt::format("--output {}: expected the name of a file in a folder that can be written",
                  path));
}

int run(const ProfileCommand& command) {
  const Job job = load_job(command.input.job, command.input.pins);
  check_runnable(job);
  const Cluster cluster = load_cluster(command.input.cluster);
  const NodeGroup& nodes = cluster.groups.front();
  if (!nodes.device.is_cpu()) {
    throw Error(
        ErrorKind::bad_input,
        fmt::format("{}: found {} devices, expected \"cpu\": a profile is measured by ranks "
                    "on this machine's CPU",
                    command.input.cluster, nodes.device.name));
  }
  check_writable(command.output);
  std::signal(SIGPIPE, SIG_IGN);
  const double begin = monotonic_seconds();
  const ProfileExtent extent = command.only_pinned ? ProfileExtent::pinned : ProfileExtent::whole;
  try {
    const Profile profile = Profiler(job, cluster).make(extent);
    write_text_file(command.output, to_toml(profile));
    const double seconds = monotonic_seconds() - begin;
    fmt::print("{}", command.json ? to_json(profile, command.output, seconds).dump(2) + "\n"
                                  : summary(profile, command.output, seconds));
    return 0;
  } catch (const Stopped& stopped) {
    say(stderr, "stopped; no profile was written\n");
    return stopped.exit_code;
  }
}

}  // namespace

void add_profile_command(CLI::App& app, int& exit_status) {
  const auto command = std::make_shared<ProfileCommand>();
  CLI::App* sub = app.add_subcommand(
      "profile", "measures a job's layers, messages and updates on this machine's CPU ranks");
  sub->add_option("JOB", command->input.job, "job file (TOML)")->required();
  sub->add_option("--cluster", command->input.cluster, "cluster file (TOML)")->required();
  sub->add_option("-o,--output", command->output, "write the profile here")->required();
  add_pin_option(*sub, command->input);
  sub->add_flag("--only-pinned", command->only_pinned,
                "measure only what the pinned layout needs: for a job that runs as it is, not for\n"
                "a search");
  sub->add_flag("--json", command->json, "print JSON");
  sub->footer(
      "Example:\n"
      "  trireme profile job.toml --cluster laptop.toml -o profile.toml\n"
      "  trireme plan job.toml --cluster laptop.toml --profile profile.toml");
  sub->callback([command, &exit_status] { exit_status = run(*command); });
}

}  // namespace trireme
