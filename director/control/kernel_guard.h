// KernelGuard: an nftables table that keeps the host's own stack from answering, refusing or forwarding the
// frames the director deals with. `nft list table netdev director` shows it, with comments.
//
// The table belongs to this process (NFT_TABLE_F_OWNER): the kernel removes it when the process ends, kill -9
// included, and nobody else can remove or flush it. Its chain hangs on the netdev ingress hook of the packet:
// devices, behind the point where packet sockets get their copy, so the director still sees everything.
// Source: linux/netfilter/nf_tables.h.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "director/base/result.h"
#include "director/control/guard_plan.h"

struct mnl_socket;

namespace director {

class KernelGuard {
 public:
  /// Throws StartupError when the machine can't do it.
  explicit KernelGuard(std::vector<std::string> interfaces);
  ~KernelGuard();

  /// Makes the table say what the plan says, in one atomic batch. Nothing to do, nothing done.
  Result<void> apply(const GuardPlan& plan);
  /// An interface that goes takes its hook with it; when it is back, under another index, the next apply() builds the
  /// table anew. Index 0: there is none now.
  void link_changed(const std::string& interface, unsigned index);

 private:
  struct SocketCloser {
    void operator()(mnl_socket* s) const;
  };

  int commit(const std::vector<char>& batch);
  [[nodiscard]] std::vector<std::string> present_interfaces() const;

  std::vector<std::string> interfaces_;
  std::map<std::string, unsigned> indexes_;  // as last heard
  std::unique_ptr<mnl_socket, SocketCloser> socket_;
  std::string table_ = "director";
  bool exists_ = false;     // the table is in the kernel
  bool installed_ = false;  // and its chain hangs on all interfaces
  GuardPlan applied_;
};

}  // namespace director
