// Options that one program has beside those it shares with others.
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace bench {

// Takes `name` and its value out of the command line. Null if it is not there; exits where the
// value is missing.
inline const char* take_option(int& argc, char** argv, const char* name) {
  char** const end = argv + argc;
  char** const found =
      std::find_if(argv + 1, end, [&](const char* text) { return std::strcmp(text, name) == 0; });
  if (found == end) return nullptr;
  if (found + 1 == end) {
    std::fprintf(stderr, "%s: %s needs a value\n", argv[0], name);
    std::exit(2);
  }
  const char* value = found[1];
  std::copy(found + 2, end, found);
  argv[argc -= 2] = nullptr;
  return value;
}

// The same for an option without a value.
inline bool take_flag(int& argc, char** argv, const char* name) {
  char** const end = argv + argc;
  char** const found =
      std::find_if(argv + 1, end, [&](const char* text) { return std::strcmp(text, name) == 0; });
  if (found == end) return false;
  std::copy(found + 1, end, found);
  argv[--argc] = nullptr;
  return true;
}

// What every server with TLS is given: PEM files.
struct TlsFiles {
  const char* certificate;
  const char* key;
};

inline TlsFiles take_tls_files(int& argc, char** argv) {
  const TlsFiles files{take_option(argc, argv, "--tls-certificate"),
                       take_option(argc, argv, "--tls-key")};
  if (files.certificate == nullptr || files.key == nullptr) {
    std::fprintf(stderr, "%s: --tls-certificate FILE and --tls-key FILE are missing\n", argv[0]);
    std::exit(2);
  }
  return files;
}

}  // namespace bench
