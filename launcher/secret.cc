#include "launcher/secret.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <fstream>
#include <memory>
#include <span>
#include <vector>

#include "topology/base/check.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

using Bytes = std::span<const unsigned char>;

std::string to_hex(Bytes bytes) {
  std::string hex;
  hex.reserve(2 * bytes.size());
  for (const unsigned char byte : bytes) {
    hex += fmt::format("{:02x}", byte);
  }
  return hex;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  throw Error(ErrorKind::failed, "the run's secret is not a text of hex digits");
}

std::array<unsigned char, 32> random_bytes() {
  std::array<unsigned char, 32> bytes{};
  if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) {
    throw Error(ErrorKind::failed, "the system gave no random bytes");
  }
  return bytes;
}

}  // namespace

Secret Secret::random() {
  Secret secret;
  secret.bytes_ = random_bytes();
  return secret;
}

Secret Secret::from_hex(std::string_view hex) {
  Secret secret;
  if (hex.size() != 2 * secret.bytes_.size()) {
    throw Error(ErrorKind::failed, "the run's secret does not have 64 hex digits");
  }
  for (size_t i = 0; i < secret.bytes_.size(); ++i) {
    secret.bytes_[i] =
        static_cast<unsigned char>(16 * hex_digit(hex[2 * i]) + hex_digit(hex[2 * i + 1]));
  }
  return secret;
}

std::string Secret::hex() const {
  return to_hex(bytes_);
}

std::string Secret::prove(std::string_view text) const {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  const auto* result =
      HMAC(EVP_sha256(), bytes_.data(), static_cast<int>(bytes_.size()),
           reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data(), &size);
  TRIREME_CHECK(result != nullptr);
  return to_hex(Bytes(digest.data(), size));
}

bool Secret::accepts(std::string_view proof, std::string_view text) const {
  const std::string expected = prove(text);
  return proof.size() == expected.size() &&
         CRYPTO_memcmp(proof.data(), expected.data(), expected.size()) == 0;
}

std::string random_nonce() {
  return to_hex(random_bytes());
}

std::string sha256_of_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                        EVP_MD_CTX_free);
  TRIREME_CHECK(context != nullptr && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1);
  std::vector<char> chunk(1 << 20);
  while (file) {
    file.read(chunk.data(), static_cast<std::streamsize>(chunk.size()));
    EVP_DigestUpdate(context.get(), chunk.data(), static_cast<size_t>(file.gcount()));
  }
  if (!file.eof()) {
    throw Error(ErrorKind::failed, fmt::format("{}: cannot be read", path));
  }
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  EVP_DigestFinal_ex(context.get(), digest.data(), &size);
  return to_hex(Bytes(digest.data(), size));
}

}  // namespace trireme
