#include "runtime/checkpoint/sha256.h"

#include <fmt/format.h>
#include <openssl/evp.h>

namespace trireme {
namespace {

EVP_MD_CTX* evp(const std::shared_ptr<void>& context) {
  return static_cast<EVP_MD_CTX*>(context.get());
}

}  // namespace

Sha256::Sha256()
    : context_(EVP_MD_CTX_new(), [](void* c) { EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(c)); }) {
  EVP_DigestInit_ex(evp(context_), EVP_sha256(), nullptr);
}

void Sha256::add(const void* data, size_t size) {
  EVP_DigestUpdate(evp(context_), data, size);
}

std::string Sha256::hex() {
  unsigned char bytes[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EVP_DigestFinal_ex(evp(context_), bytes, &size);
  std::string text;
  for (unsigned int i = 0; i < size; ++i) text += fmt::format("{:02x}", bytes[i]);
  return text;
}

}  // namespace trireme
