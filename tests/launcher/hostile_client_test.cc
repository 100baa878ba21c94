#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <future>
#include <thread>

#include "launcher/greeting.h"
#include "launcher/process.h"
#include "planner/plan/protocol.h"
#include "tests/launcher/scripted_run.h"

// Strangers at the door of a real listening controller.
namespace trireme::testing {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

// Starts nothing: remembers the order, so that the test can play the agent.
class NoStarter : public AgentStarter {
 public:
  void start(const AgentOrder& order) override { orders.set_value(order); }
  std::vector<Ended> collect() override { return {}; }
  void end_all() override {}
  std::promise<AgentOrder> orders;
};

// A blocking client.
class Client {
 public:
  explicit Client(uint16_t port) : socket_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    const timeval patience{5, 0};
    setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  }
  void send_bytes(const std::string& bytes) {
    std::ignore = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }
  void send(const Json& message) { send_bytes(encode_frame(message)); }
  // The next message; null when the controller has closed.
  Json receive() {
    char chunk[4096];
    for (;;) {
      if (const auto message = frames_.next()) {
        return *message;
      }
      const ssize_t n = recv(socket_.get(), chunk, sizeof chunk, 0);
      if (n <= 0) {
        return nullptr;
      }
      frames_.append({chunk, static_cast<size_t>(n)});
    }
  }
  bool closed_by_peer() {
    while (!receive().is_null()) {
    }
    char byte = 0;
    return recv(socket_.get(), &byte, 1, 0) <= 0 && errno != EAGAIN;
  }

 private:
  Descriptor socket_;
  FrameReader frames_;
};

// A controller of one agent that listens in a thread, and an agent played by the test.
class HostileClient : public ::testing::Test {
 protected:
  void SetUp() override {
    controller_ = std::make_unique<Controller>(setup_of(1, 1, run_.path()), starter_, observer_);
    port_ = controller_->port();
    thread_ = std::thread([this] { outcome_ = controller_->run(); });
    secret_ = starter_.orders.get_future().get().secret;
  }
  void TearDown() override {
    finish_run();
    thread_.join();
    EXPECT_EQ(outcome_.exit_code, 0) << "the run itself must not suffer";
  }

  Json greet(Client& client, const Secret& secret) {
    AgentGreeting greeting(secret, {.node = "node0", .generation = 1, .pid = 1});
    client.send(greeting.hello(client.receive()));
    return client.receive();
  }
  // Plays an agent whose only rank trains nothing and is done.
  void finish_run() {
    Client agent(port_);
    ASSERT_EQ(greet(agent, secret_)["type"], "welcome");
    Json message = agent.receive();
    while (message["type"] != "launch") {
      message = agent.receive();
    }
    const Json done = {{"type", "done"}, {"stopped", false}, {"step", 1}, {"summary", nullptr}};
    agent.send({{"type", "rank"}, {"rank", 0}, {"message", done}});
    agent.send({{"type", "ended"},
                {"rank", 0},
                {"status", to_json(ExitStatus{})},
                {"silent_seconds", 0},
                {"doing", nullptr},
                {"log_tail", Json::array()}});
    while (message["type"] != "leave") {
      message = agent.receive();
    }
  }

  ScratchRun run_;
  NoStarter starter_;
  Secret secret_;
  SilentObserver observer_;
  std::unique_ptr<Controller> controller_;
  std::thread thread_;
  uint16_t port_ = 0;
  RunOutcome outcome_;
};

TEST_F(HostileClient, JunkIsClosedAtOnce) {
  for (const std::string& junk :
       {std::string("GET / HTTP/1.1\r\n\r\n"), std::string(100000, '\xff'),
        std::string("\0\0\0\5hello", 9), encode_frame({{"type", "launch"}})}) {
    Client client(port_);
    client.send_bytes(junk);
    EXPECT_TRUE(client.closed_by_peer());
  }
  run_.await("stranger_closed");
}

TEST_F(HostileClient, WhatFollowsARefusedHelloIsNotHeard) {
  const std::string hello = encode_frame({{"type", "hello"}});
  for (int times : {2, 3, 20}) {
    std::string all;
    for (int i = 0; i < times; ++i) all += hello;
    Client client(port_);
    client.receive();  // the challenge: what is sent now arrives in one piece
    client.send_bytes(all);
    EXPECT_TRUE(client.closed_by_peer());
  }
}

TEST_F(HostileClient, AHeaderOfFourGibibytesIsClosedBeforeItsBody) {
  Client client(port_);
  client.send_bytes("\xff\xff\xff\xff");
  EXPECT_TRUE(client.closed_by_peer());
}

TEST_F(HostileClient, AGreetingAboveItsLimitIsClosed) {
  Client client(port_);
  client.send({{"type", "hello"}, {"padding", std::string(size_t{2} * kMaxGreetingBytes, 'x')}});
  EXPECT_TRUE(client.closed_by_peer());
}

TEST_F(HostileClient, SilenceIsClosedAfterTwoSeconds) {
  Client silent(port_);
  Client slow(port_);
  const auto begin = std::chrono::steady_clock::now();
  slow.send_bytes(std::string("\0\0", 2));
  EXPECT_TRUE(silent.closed_by_peer());
  EXPECT_TRUE(slow.closed_by_peer());
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  EXPECT_GT(seconds, 1.5);
  EXPECT_LT(seconds, 2.5);
}

TEST_F(HostileClient, AWrongSecretIsRefusedWithASentence) {
  Client client(port_);
  const Json answer = greet(client, Secret::random());
  EXPECT_EQ(answer["type"], "refused");
  EXPECT_THAT(answer["reason"], HasSubstr("does not prove"));
  EXPECT_TRUE(client.closed_by_peer());
}

TEST_F(HostileClient, AProofFromAnotherConnectionIsRefused) {
  Client watched(port_);
  AgentGreeting greeting(secret_, {.node = "node0", .generation = 1, .pid = 1});
  const Json hello = greeting.hello(watched.receive());
  Client replayer(port_);
  replayer.receive();
  replayer.send(hello);
  EXPECT_EQ(replayer.receive()["type"], "refused");
}

TEST_F(HostileClient, ANodeThatIsNotInThePlanIsRefused) {
  Client client(port_);
  AgentGreeting greeting(secret_, {.node = "elsewhere", .generation = 1, .pid = 1});
  client.send(greeting.hello(client.receive()));
  EXPECT_THAT(client.receive()["reason"], HasSubstr("the plan has no node \"elsewhere\""));
}

TEST_F(HostileClient, ACrowdIsTurnedAwayAndTheAgentStillComesThrough) {
  std::vector<std::unique_ptr<Client>> crowd;
  for (int i = 0; i < Controller::kStrangerSeats + 50; ++i) {
    crowd.push_back(std::make_unique<Client>(port_));
  }
  EXPECT_TRUE(crowd.back()->closed_by_peer()) << "no seat was left";
  EXPECT_EQ(crowd.front()->receive()["type"], "challenge");
  EXPECT_TRUE(crowd.front()->closed_by_peer()) << "its time was up";
}

}  // namespace
}  // namespace trireme::testing
