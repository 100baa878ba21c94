#include "launcher/controller.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/signal_set.hpp>
#include <csignal>
#include <list>
#include <utility>

#include "launcher/asio_loop.h"
#include "launcher/clock.h"
#include "launcher/events.h"
#include "launcher/framed_socket.h"
#include "launcher/greeting.h"
#include "planner/plan/protocol.h"
#include "planner/plan/run_directory.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

constexpr int kGeneration = 1;
constexpr double kOneWishSeconds = 0.2;
constexpr int kRecordedStrangers =
    100;  // beyond that they are only counted: no stranger fills the disk

// One accepted connection: a stranger until `node` is set.
struct Connection {
  Connection(asio::io_context& io, int descriptor, const Secret& secret, double now)
      : socket(io, descriptor, kMaxGreetingBytes),
        greeting(secret, kGeneration),
        deadline(now + Controller::kGreetingSeconds) {}
  FramedSocket socket;
  ControllerGreeting greeting;
  double deadline;
  int node = -1;
};

}  // namespace

struct Controller::Core {
  Core(ControllerSetup s, AgentStarter& st, RunObserver& o)
      : setup(std::move(s)),
        starter(st),
        observer(o),
        events(RunDirectory{setup.run_directory}.events(), complain()),
        metrics(RunDirectory{setup.run_directory}.metrics(), complain()),
        acceptor(io, tcp::endpoint(asio::ip::address_v4::loopback(), 0)),
        signals(io, SIGINT, SIGTERM),
        ticker(io, [this] { tick(); }),
        state(setup, monotonic_seconds()),
        agents(setup.nodes.size(), nullptr) {}

  std::function<void(const std::string&)> complain() {
    return [this](const std::string& complaint) { observer.say(complaint); };
  }

  void tell_lost_lines(const LineFile& file) {
    if (file.lost() > 0) {
      observer.say(fmt::format("{} lacks {} lines", file.path(), file.lost()));
    }
  }

  void start_agents() {
    for (const std::string& node : setup.nodes) {
      starter.start({.node = node,
                     .controller_address = acceptor.local_endpoint().address().to_string(),
                     .controller_port = acceptor.local_endpoint().port(),
                     .secret = secret,
                     .generation = kGeneration,
                     .run_directory = setup.run_directory});
    }
  }

  void accept() {
    acceptor.async_accept([this](error_code e, tcp::socket socket) {
      accepting = !e;  // out of descriptors, say: the next tick tries again
      if (e) {
        return;
      }
      admit(std::move(socket));
      accept();
    });
  }

  void admit(tcp::socket socket) {
    const auto is_stranger = [](const Connection& c) { return c.node < 0; };
    const auto seats = kStrangerSeats + static_cast<std::ptrdiff_t>(setup.nodes.size());
    if (std::count_if(connections.begin(), connections.end(), is_stranger) >= seats) {
      note_stranger("too many connections that have not proved themselves");
      return;
    }
    send_at_once(socket);
    connections.emplace_back(io, socket.release(), secret, monotonic_seconds());
    const auto connection = std::prev(connections.end());
    connection->socket.start(
        [this, connection](const Json& message) { hear(connection, message); },
        [this, connection](const FramedSocket::End& end) { lose(connection, end.why); });
    connection->socket.send(connection->greeting.challenge());
  }

  void hear(std::list<Connection>::iterator connection, const Json& message) {
    if (connection->node >= 0) {
      feed(AgentSaid{connection->node, message});
      return;
    }
    ControllerGreeting::Answer answer = connection->greeting.answer(message);
    if (answer.agent) {
      if (const std::string why = objection(*answer.agent); !why.empty()) {
        answer = {.reply = {{"type", "refused"}, {"reason", why}}, .agent = {}, .refusal = why};
      }
    }
    connection->socket.send(answer.reply);
    if (!answer.agent) {
      connection->socket.close_when_sent();
      note_stranger(answer.refusal);
      connections.erase(connection);
      return;
    }
    connection->node = node_index(answer.agent->node);
    connection->socket.set_frame_limit(kMaxFrameBytes);
    agents[static_cast<size_t>(connection->node)] = &*connection;
    feed(AgentConnected{connection->node, answer.agent->pid});
  }

  int node_index(const std::string& node) const {
    const auto found = std::find(setup.nodes.begin(), setup.nodes.end(), node);
    return found == setup.nodes.end() ? -1 : static_cast<int>(found - setup.nodes.begin());
  }

  std::string objection(const AgentIdentity& agent) const {
    const int node = node_index(agent.node);
    if (node < 0) {
      return fmt::format("the plan has no node \"{}\"", agent.node);
    }
    return agents[static_cast<size_t>(node)] == nullptr
               ? ""
               : fmt::format("node \"{}\" already has its agent", agent.node);
  }

  void lose(std::list<Connection>::iterator connection, const std::string& why) {
    const int node = connection->node;
    connections.erase(connection);
    if (node < 0) {
      note_stranger(why);
    } else {
      agents[static_cast<size_t>(node)] = nullptr;
      feed(AgentLost{node, why});
    }
  }

  void note_stranger(const std::string& why) {
    if (++strangers <= kRecordedStrangers) {
      events.record({{"event", "stranger_closed"}, {"cause", printable(why)}});
    }
  }

  void tick() {
    const double now = monotonic_seconds();
    for (auto c = connections.begin(); c != connections.end();) {
      if (c->node < 0 && now >= c->deadline) {
        note_stranger("did not prove itself in time");
        c = connections.erase(c);
      } else {
        ++c;
      }
    }
    for (const AgentStarter::Ended& agent : starter.collect()) {
      feed(AgentEnded{node_index(agent.node), agent.status});
    }
    feed(ControllerTick{});
    if (!accepting) {
      accepting = true;
      accept();
    }
  }

  // A terminal that goes away asks to stop, unless somebody (nohup) saw to it that it does not.
  void heed_hang_up() {
    struct sigaction action {};
    if (sigaction(SIGHUP, nullptr, &action) == 0 && action.sa_handler != SIG_IGN) {
      signals.add(SIGHUP);
    }
  }

  // What follows at once is the same wish: `timeout` signals a process and then its group.
  void await_signal() {
    signals.async_wait([this](error_code e, int signal) {
      if (e) {
        return;
      }
      const double now = monotonic_seconds();
      if (now - last_signal >= kOneWishSeconds) {
        feed(StopAsked{signal});
      }
      last_signal = now;
      await_signal();
    });
  }

  void feed(const ControllerEvent& event) {
    for (ControllerAction& action : state.handle(event, monotonic_seconds())) {
      std::visit([this](auto& a) { apply(a); }, action);
    }
  }

  void apply(SendToAgent& action) {
    if (Connection* agent = agents[static_cast<size_t>(action.node)]) {
      agent->socket.send(action.message);
    }
  }
  void apply(RecordEvent& action) { events.record(std::move(action.event)); }
  void apply(Say& action) { observer.say(action.text); }
  void apply(StepDone& action) {
    metrics.append(metrics_line(action.metrics));
    observer.step(action.metrics);
  }
  void apply(Finish&) { io.stop(); }

  ControllerSetup setup;
  AgentStarter& starter;
  RunObserver& observer;
  Secret secret = Secret::random();
  EventLog events;
  LineFile metrics;
  asio::io_context io{1};
  tcp::acceptor acceptor;
  asio::signal_set signals;
  Ticker ticker;
  ControllerState state;
  std::list<Connection> connections;
  std::vector<Connection*> agents;  // by node; in `connections`
  double last_signal = -kOneWishSeconds;
  int strangers = 0;
  bool accepting = true;
};

Controller::Controller(ControllerSetup setup, AgentStarter& starter, RunObserver& observer)
    : core_(std::make_unique<Core>(std::move(setup), starter, observer)) {}

Controller::~Controller() = default;

uint16_t Controller::port() const {
  return core_->acceptor.local_endpoint().port();
}

RunOutcome Controller::run() {
  core_->accept();
  core_->heed_hang_up();
  core_->await_signal();
  core_->start_agents();
  core_->ticker.start();
  core_->io.run();
  core_->starter.end_all();
  if (core_->strangers > 0) {
    core_->events.record({{"event", "strangers"}, {"closed", core_->strangers}});
  }
  core_->tell_lost_lines(core_->events.file());
  core_->tell_lost_lines(core_->metrics);
  return core_->state.outcome();
}

}  // namespace trireme
