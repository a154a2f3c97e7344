// The ledger on disk: one file per network namespace, locked while somebody works with it, replaced as a
// whole.
#pragma once

#include <filesystem>
#include <string>

#include "director/io/unique_fd.h"
#include "director/realserver/ledger.h"

namespace director::realserver {

inline constexpr const char* kDefaultStateDirectory = "/run/realserver";

/// Who this network namespace is, for as long as the machine runs: the kernel's cookie for it (inode numbers
/// are used again, cookies are not) and the boot's ID.
[[nodiscard]] std::string namespace_identity();

class LedgerFile {
 public:
  /// Makes the directory if need be, waits for the lock and reads; a file left by another namespace counts as
  /// empty.
  explicit LedgerFile(const std::filesystem::path& directory);
  LedgerFile(const LedgerFile&) = delete;
  LedgerFile& operator=(const LedgerFile&) = delete;

  Ledger ledger;
  /// Writes what `ledger` says now; a ledger with nothing in it leaves no file.
  void save();

  /// What a reader without privilege may know: no lock, and no error when there is no file.
  [[nodiscard]] static Ledger peek(const std::filesystem::path& directory);

 private:
  std::filesystem::path directory_;
  std::filesystem::path path_;
  UniqueFd lock_;
};

}  // namespace director::realserver
