// Asked by nfnetlink: a dump of all chains. Source: linux/netfilter/nf_tables.h, libnftnl.
#include "director/realserver/ingress_rules.h"

#include <libmnl/libmnl.h>
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <memory>

namespace director::realserver {
namespace {

/// A base chain that sees frames as they come to an interface.
bool is_at_ingress(const nlmsghdr* message) {
  const std::unique_ptr<nftnl_chain, void (*)(const nftnl_chain*)> chain{nftnl_chain_alloc(), nftnl_chain_free};
  if (!chain || nftnl_chain_nlmsg_parse(message, chain.get()) < 0) return false;
  if (!nftnl_chain_is_set(chain.get(), NFTNL_CHAIN_HOOKNUM)) return false;
  const std::uint32_t hook = nftnl_chain_get_u32(chain.get(), NFTNL_CHAIN_HOOKNUM);
  const std::uint32_t family = nftnl_chain_get_u32(chain.get(), NFTNL_CHAIN_FAMILY);
  return (family == NFPROTO_NETDEV && hook == NF_NETDEV_INGRESS) || (family == NFPROTO_INET && hook == NF_INET_INGRESS);
}

int look(const nlmsghdr* message, void* found) {
  if (is_at_ingress(message)) *static_cast<bool*>(found) = true;
  return MNL_CB_OK;
}

}  // namespace

IngressRules::IngressRules() {
  UniqueFd fd{::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER)};
  sockaddr_nl groups{};
  groups.nl_family = AF_NETLINK;
  groups.nl_groups = 1U << (NFNLGRP_NFTABLES - 1);
  if (fd && ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&groups), sizeof groups) == 0) events_ = std::move(fd);
}

bool IngressRules::any() {
  if (!events_) return false;
  std::array<char, 8192> buffer;
  // What the news say doesn't matter, not even whether some were lost (ENOBUFS): all is asked again.
  while (::recv(events_.get(), buffer.data(), buffer.size(), 0) > 0 || errno == ENOBUFS) {
  }

  const std::unique_ptr<mnl_socket, int (*)(mnl_socket*)> socket{mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC), mnl_socket_close};
  if (!socket || mnl_socket_bind(socket.get(), 0, MNL_SOCKET_AUTOPID) < 0) return true;
  constexpr std::uint32_t kSequence = 1;
  const nlmsghdr* question = nftnl_nlmsg_build_hdr(buffer.data(), NFT_MSG_GETCHAIN, NFPROTO_UNSPEC, NLM_F_DUMP, kSequence);
  if (mnl_socket_sendto(socket.get(), question, question->nlmsg_len) < 0) return true;
  bool found = false;
  for (;;) {
    const ssize_t n = mnl_socket_recvfrom(socket.get(), buffer.data(), buffer.size());
    if (n < 0) return true;
    const int more = mnl_cb_run(buffer.data(), static_cast<std::size_t>(n), kSequence, mnl_socket_get_portid(socket.get()), look, &found);
    if (more > 0) continue;
    // EINTR: they changed meanwhile. Other refusals: this kernel has no nftables.
    return found || (more < 0 && errno == EINTR);
  }
}

}  // namespace director::realserver
