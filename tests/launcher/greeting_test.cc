#include "launcher/greeting.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "planner/plan/protocol.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

// RFC 4231, test case 1: key 20 times 0x0b; here padded with zeros to 32 bytes, which HMAC does
// with short keys itself (RFC 2104: keys are padded with zeros to the block size).
TEST(Secret, ProvesWithHmacSha256) {
  const Secret key =
      Secret::from_hex("0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b000000000000000000000000");
  EXPECT_EQ(key.prove("Hi There"),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  EXPECT_TRUE(key.accepts(key.prove("x"), "x"));
  EXPECT_FALSE(key.accepts(key.prove("x"), "y"));
  EXPECT_FALSE(key.accepts("", "x"));
}

TEST(Secret, IsThirtyTwoBytesThatDiffer) {
  EXPECT_EQ(Secret::random().hex().size(), 64U);
  EXPECT_NE(Secret::random().hex(), Secret::random().hex());
  EXPECT_THROW(Secret::from_hex("00"), Error);
  EXPECT_THROW(Secret::from_hex(std::string(64, 'z')), Error);
}

class Greeting : public ::testing::Test {
 protected:
  Secret secret_ = Secret::random();
  AgentIdentity identity_{.node = "gpu07", .generation = 3, .pid = 42};
};

TEST_F(Greeting, BothSidesOfOneRunAcceptEachOther) {
  const ControllerGreeting controller(secret_, 3);
  AgentGreeting agent(secret_, identity_);
  const auto answer = controller.answer(agent.hello(controller.challenge()));
  ASSERT_TRUE(answer.agent) << answer.refusal;
  EXPECT_EQ(answer.agent->node, "gpu07");
  EXPECT_EQ(answer.agent->pid, 42);
  EXPECT_NO_THROW(agent.check(answer.reply));
}

TEST_F(Greeting, AnotherSecretIsRefusedByBothSides) {
  const Secret other = Secret::random();
  const ControllerGreeting controller(secret_, 3);
  AgentGreeting agent(other, identity_);
  const auto answer = controller.answer(agent.hello(controller.challenge()));
  EXPECT_FALSE(answer.agent);
  EXPECT_THAT(answer.refusal, HasSubstr("does not prove"));
  EXPECT_THROW(agent.check(answer.reply), Error);

  const ControllerGreeting impostor(other, 3);
  AgentGreeting ours(secret_, identity_);
  const Json hello = ours.hello(impostor.challenge());
  EXPECT_THROW(ours.check({{"type", "welcome"}, {"proof", std::string(64, '0')}}), Error);
  EXPECT_THROW(ours.check({{"type", "welcome"}, {"proof", hello["proof"]}}), Error)
      << "its own proof sent back";
}

TEST_F(Greeting, AReplayedHelloIsRefused) {
  const ControllerGreeting first(secret_, 3);
  const ControllerGreeting second(secret_, 3);
  AgentGreeting agent(secret_, identity_);
  const Json hello = agent.hello(first.challenge());
  EXPECT_TRUE(first.answer(hello).agent);
  EXPECT_FALSE(second.answer(hello).agent);
}

TEST_F(Greeting, EveryFieldOfTheHelloIsProven) {
  const ControllerGreeting controller(secret_, 3);
  AgentGreeting agent(secret_, identity_);
  const Json hello = agent.hello(controller.challenge());
  ASSERT_TRUE(controller.answer(hello).agent);
  const Json changes = {{"node", "gpu08"}, {"generation", 4}, {"pid", 1}, {"nonce", "00"}};
  for (const auto& [key, value] : changes.items()) {
    Json changed = hello;
    changed[key] = value;
    EXPECT_FALSE(controller.answer(changed).agent) << key;
  }
  for (const auto& [key, value] : hello.items()) {
    Json missing = hello;
    missing.erase(key);
    EXPECT_FALSE(controller.answer(missing).agent) << key;
    Json wrong_type = hello;
    wrong_type[key] = Json::array();
    EXPECT_FALSE(controller.answer(wrong_type).agent) << key;
  }
}

TEST_F(Greeting, OldGenerationsAndOtherVersionsAreRefusedBySentence) {
  const ControllerGreeting controller(secret_, 4);
  AgentGreeting old(secret_, identity_);
  EXPECT_THAT(controller.answer(old.hello(controller.challenge())).refusal,
              HasSubstr("belongs to generation 3 of the run, which is now in 4"));
  Json hello = old.hello(controller.challenge());
  hello["version"] = kProtocolVersion + 1;
  EXPECT_THAT(controller.answer(hello).refusal,
              HasSubstr("speaks protocol version 2, the controller version 1"));
}

}  // namespace
}  // namespace trireme
