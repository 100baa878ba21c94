#pragma once

#include <array>
#include <string>
#include <string_view>

namespace trireme {

// What the controller and the agents of one run know and nobody else does: 32 random bytes. It
// travels to an agent over an inherited pipe, never in arguments or environment.
class Secret {
 public:
  static Secret random();
  // Throws Error(failed) when the text is not 64 hex digits.
  static Secret from_hex(std::string_view hex);

  std::string hex() const;
  // HMAC-SHA256 (RFC 2104) of `text` under this secret, in hex.
  std::string prove(std::string_view text) const;
  // Whether `proof` is prove(text); takes as long for a near miss as for a wild guess.
  bool accepts(std::string_view proof, std::string_view text) const;

 private:
  std::array<unsigned char, 32> bytes_{};
};

// 32 fresh random bytes in hex, to be used once.
std::string random_nonce();

// SHA-256 of a file's content in hex, as `sha256sum` prints it. Throws Error(failed) when it cannot
// be read.
std::string sha256_of_file(const std::string& path);

}  // namespace trireme
