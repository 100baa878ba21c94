#include "runtime/data/token_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <thread>
#include <utility>

#include "tests/runtime/support.h"
#include "topology/base/error.h"

namespace trireme::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Tokens : public testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& content) const {
    std::string path = directory_.path() + "/" + name;
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }
  // llm.c's file: 256 header words, the first of which is its magic number and the third the number
  // of tokens, then tokens of 16 bits.
  static std::string llmc(int32_t promised, const std::vector<uint16_t>& tokens) {
    std::vector<int32_t> header(256);
    header[0] = 20240520;
    header[1] = 1;
    header[2] = promised;
    std::string text(reinterpret_cast<const char*>(header.data()), header.size() * 4);
    return text.append(reinterpret_cast<const char*>(tokens.data()), tokens.size() * 2);
  }
  static void read_some(const Data& data, int vocabulary) {
    const TokenSource source(data, 3, vocabulary, 1);
    std::vector<int32_t> inputs(3), targets(3);
    for (uint64_t k = 0; k < 8; ++k) source.sample(k, inputs.data(), targets.data());
  }
  static std::string refusal(const Data& data, int vocabulary = 256) {
    return message_of(ErrorKind::bad_input, [&] { read_some(data, vocabulary); });
  }
  TemporaryDirectory directory_;
};

TEST_F(Tokens, OfLlmcFilesBeginBehindTheirHeader) {
  const Data data{write("a.bin", llmc(5, {7, 500, 9, 10, 11})), DataFormat::llmc,
                  SampleOrder::sequential};
  const TokenSource source(data, 3, 512, 1);
  std::vector<int32_t> inputs(3), targets(3);
  source.sample(0, inputs.data(), targets.data());
  EXPECT_THAT(inputs, ElementsAre(7, 500, 9));
  EXPECT_THAT(targets, ElementsAre(500, 9, 10));
}

TEST_F(Tokens, AnLlmcFileThatWasCutIsRefused) {
  const Data data{write("a.bin", llmc(6, {7, 500, 9, 10, 11})), DataFormat::llmc,
                  SampleOrder::sequential};
  EXPECT_THAT(refusal(data, 512), HasSubstr("a.bin: its header promises 6 tokens, found 10 bytes"));
}

TEST_F(Tokens, ATokenBeyondTheVocabularyIsNamedWithItsFile) {
  write("a.txt", "aaaa");
  write("b.txt", "aazaaaa");
  const Data data{directory_.path() + "/*.txt", DataFormat::text, SampleOrder::sequential};
  EXPECT_THAT(
      refusal(data, 'z'),
      HasSubstr("b.txt: found token 122 as number 2, expected tokens below model.vocab = 122"));
  EXPECT_NO_THROW(read_some(data, 'z' + 1));
}

TEST_F(Tokens, AFileMayHaveTheNameOfAPattern) {
  const std::string path = write("g[1]*.txt", "abcdefgh");
  EXPECT_NO_THROW(read_some({path, DataFormat::text, SampleOrder::sequential}, 256));
}

TEST_F(Tokens, ADirectoryIsNoFile) {
  EXPECT_THAT(refusal({directory_.path(), DataFormat::text, SampleOrder::sequential}),
              HasSubstr("is not a file"));
}

TEST_F(Tokens, DataThatDiffersInSizeOrAtAnEndOfAFileIsOther) {
  const std::string text(10000, 'a');
  const Data data{write("a.txt", text), DataFormat::text, SampleOrder::sequential};
  const auto identity = [&] { return TokenSource(data, 3, 256, 1).identity(); };
  const auto before = identity();
  EXPECT_EQ(identity(), before);
  for (const size_t at : {size_t{0}, text.size() - 1}) {
    std::string other = text;
    other[at] = 'b';
    write("a.txt", other);
    EXPECT_NE(identity(), before);
  }
  write("a.txt", text + "a");
  EXPECT_NE(identity(), before);
}

// Tells when its rank first sends or receives, which it does once it has its data.
class Announcing final : public Transport {
 public:
  Announcing(std::unique_ptr<Transport> inner, std::atomic<int>& begun)
      : inner_(std::move(inner)), begun_(begun) {}
  Rank rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  void send(Rank to, uint64_t tag, std::span<const float> data,
            std::shared_ptr<const void> keep) override {
    announce();
    inner_->send(to, tag, data, std::move(keep));
  }
  std::unique_ptr<Work> receive(Rank from, uint64_t tag, std::span<float> into) override {
    announce();
    return inner_->receive(from, tag, into);
  }

 private:
  void announce() {
    if (!std::exchange(announced_, true)) ++begun_;
  }
  std::unique_ptr<Transport> inner_;
  std::atomic<int>& begun_;
  bool announced_ = false;
};

// The file grows by a byte once all ranks but the last have opened it.
TEST_F(Tokens, RanksThatFindDifferentDataDoNotTrain) {
  Job job = tiny_llama(1);
  const std::string text(4000, 'a');
  job.data = {write("a.txt", text), DataFormat::text, SampleOrder::sequential};
  job.model.vocab = 256;
  std::atomic<int> begun = 0;
  RunOptions growing;
  growing.wrap = [&](std::unique_ptr<Transport> transport) -> std::unique_ptr<Transport> {
    if (transport->rank().value == 3) {
      while (begun < 3) std::this_thread::yield();
      write("a.txt", text + "a");
    }
    return std::make_unique<Announcing>(std::move(transport), begun);
  };
  const Plan plan = plan_for(job, {1, 2, 2, 1, "1f1b", 1});
  EXPECT_THAT(message_of(ErrorKind::bad_input, [&] { run_in_memory(plan, growing); }),
              HasSubstr("a.txt: ranks find different data: 400"));
}

}  // namespace
}  // namespace trireme::test
