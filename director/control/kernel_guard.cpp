// The table `netdev director`, message by message: sets that follow the services, and one chain of rules that
// never changes.
#include "director/control/kernel_guard.h"

#include <fmt/format.h>
#include <libmnl/libmnl.h>
#include <libnftnl/batch.h>
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <libnftnl/udata.h>
#include <linux/if_ether.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <net/if.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "director/base/startup_error.h"
#include "director/log.h"
#include "director/net/endian.h"
#include "director/net/headers.h"

namespace director {
namespace {

/// nft(8)'s numbers of the data types (its include/datatype.h): what makes a listing readable.
constexpr std::uint32_t kTypeIpv4 = 7;
constexpr std::uint32_t kTypeIpv6 = 8;
constexpr std::uint32_t kTypeProtocol = 12;
constexpr std::uint32_t kTypePort = 13;
constexpr std::uint32_t concatenated(std::uint32_t a, std::uint32_t b) {
  return a << 6U | b;
}
constexpr std::uint32_t kBigEndian = 2;  // its enum byteorder

constexpr std::uint32_t kRegister = NFT_REG32_00;  // 4 bytes each from here
constexpr std::size_t kElementsPerMessage = 256;
constexpr std::size_t kMessageRoom = 64 << 10;

/// Where things are in an IP packet of either family. Offsets from the network or transport header;
/// `quoted_*` from the ICMP header to the packet quoted behind it (taken to have no options).
struct Layout {
  Family family;
  const char* suffix;  // of set names
  std::uint16_t ethertype;
  std::uint32_t address_type;
  std::uint32_t address_size;
  std::uint32_t source, target;
  Protocol icmp;
  std::uint32_t quoted_protocol, quoted_source, quoted_target, quoted_source_port, quoted_target_port;
};
constexpr std::uint32_t kIcmp = sizeof(IcmpHeader);
constexpr Layout kLayouts[] = {
    {Family::ipv4, "4", ETH_P_IP, kTypeIpv4, 4, offsetof(Ipv4Header, source), offsetof(Ipv4Header, target),
     Protocol::icmp, kIcmp + offsetof(Ipv4Header, protocol), kIcmp + offsetof(Ipv4Header, source),
     kIcmp + offsetof(Ipv4Header, target), kIcmp + sizeof(Ipv4Header), kIcmp + sizeof(Ipv4Header) + 2},
    {Family::ipv6, "6", ETH_P_IPV6, kTypeIpv6, 16, offsetof(Ipv6Header, source), offsetof(Ipv6Header, target),
     Protocol::icmpv6, kIcmp + offsetof(Ipv6Header, next_header), kIcmp + offsetof(Ipv6Header, source),
     kIcmp + offsetof(Ipv6Header, target), kIcmp + sizeof(Ipv6Header), kIcmp + sizeof(Ipv6Header) + 2},
};

// --- sets: what changes with the services
// -----------------------------------------------------------------------------

enum class Key : std::uint8_t { address, address_protocol, address_protocol_port };

struct SetKind {
  const char* name;
  Key key;
  const char* comment;
};
enum SetIndex : std::size_t {
  kVirtual,
  kServed,
  kServedWhole,
  kAnswering,
  kAnsweringWhole,
  kChecked,
  kHost,
  kSetCount
};
constexpr SetKind kSets[kSetCount] = {
    {"virtual", Key::address, "virtual addresses: the director alone answers for them"},
    {"served", Key::address_protocol_port, "services at addresses this host owns too"},
    {"served_whole", Key::address_protocol, "the same, all ports"},
    {"answering", Key::address_protocol_port,
     "masqueraded servers: the director translates what they answer"},
    {"answering_whole", Key::address_protocol, "the same, all ports"},
    {"checked", Key::address_protocol_port, "where the director's health checks ask"},
    {"host", Key::address, "this host's own addresses"},
};

std::string set_name(std::size_t set, const Layout& layout) {
  return fmt::format("{}{}", kSets[set].name, layout.suffix);
}

std::uint32_t key_size(Key key, const Layout& layout) {
  return layout.address_size + (key == Key::address ? 0 : key == Key::address_protocol ? 4 : 8);
}

std::uint32_t key_type(Key key, const Layout& layout) {
  if (key == Key::address) return layout.address_type;
  const std::uint32_t with_protocol = concatenated(layout.address_type, kTypeProtocol);
  return key == Key::address_protocol ? with_protocol : concatenated(with_protocol, kTypePort);
}

/// An element's key: address, protocol, port, each padded to 4 bytes as in the registers they are compared
/// with.
using KeyBytes = std::vector<std::uint8_t>;
KeyBytes key_bytes(Key key, const GuardPlan::Target& t) {
  const auto address = t.address.wire();
  KeyBytes bytes(address.begin(), address.end());
  if (key == Key::address) return bytes;
  bytes.insert(bytes.end(), {static_cast<std::uint8_t>(t.protocol), 0, 0, 0});
  if (key == Key::address_protocol) return bytes;
  const std::uint16_t port = t.port.host();
  bytes.insert(bytes.end(), {static_cast<std::uint8_t>(port >> 8U), static_cast<std::uint8_t>(port), 0, 0});
  return bytes;
}

std::vector<KeyBytes> elements_of(std::size_t set, const Layout& layout, const GuardPlan& plan) {
  std::vector<KeyBytes> elements;
  const auto add_addresses = [&](const std::vector<IpAddress>& all) {
    for (const IpAddress& a : all)
      if (a.family() == layout.family) elements.push_back(key_bytes(Key::address, {a, {}, {}}));
  };
  const auto add_targets = [&](const std::vector<GuardPlan::Target>& all) {
    const bool whole = kSets[set].key == Key::address_protocol;
    for (const GuardPlan::Target& t : all)
      if (t.address.family() == layout.family && (t.port.host() == 0) == whole)
        elements.push_back(key_bytes(kSets[set].key, t));
  };
  switch (set) {
    case kVirtual:
      add_addresses(plan.virtual_addresses);
      break;
    case kHost:
      add_addresses(plan.host);
      break;
    case kChecked:
      add_targets(plan.checked);
      break;
    case kServed:
    case kServedWhole:
      add_targets(plan.served);
      break;
    default:
      add_targets(plan.answering);
      break;
  }
  return elements;
}

// --- messages
// ---------------------------------------------------------------------------------------------------------

/// Messages of one transaction, built one behind the other.
class Batch {
 public:
  explicit Batch(std::string table) : table_(std::move(table)) {
    put([&](char* at) { return nftnl_batch_begin(at, sequence_); });
  }

  void delete_table() { table_message(NFT_MSG_DELTABLE, 0); }
  void new_table() { table_message(NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL); }
  void new_chain(const std::vector<std::string>& interfaces);
  void new_set(std::size_t set, const Layout& layout);
  void fill_set(std::size_t set, const Layout& layout, const std::vector<KeyBytes>& elements);
  void flush_set(std::size_t set, const Layout& layout) { set_elements(NFT_MSG_DELSETELEM, set, layout, {}); }
  void new_rule(const char* comment, const std::vector<nftnl_expr*>& expressions);

  /// The whole batch; the last message asks for an answer, so that there is one.
  std::vector<char> finish();

 private:
  template <typename Build>
  nlmsghdr* put(Build build) {
    const std::size_t at = bytes_.size();
    bytes_.resize(at + kMessageRoom);
    nlmsghdr* message = build(bytes_.data() + at);
    bytes_.resize(at + MNL_ALIGN(message->nlmsg_len));
    ++sequence_;
    return reinterpret_cast<nlmsghdr*>(bytes_.data() + at);
  }
  template <typename Object, typename Payload>
  void message(std::uint16_t type, std::uint16_t flags, Object* object, Payload payload) {
    last_ = bytes_.size();
    put([&](char* at) {
      nlmsghdr* m = nftnl_nlmsg_build_hdr(at, type, NFPROTO_NETDEV, flags, sequence_);
      payload(m, object);
      return m;
    });
  }
  void table_message(std::uint16_t type, std::uint16_t flags);
  void set_elements(std::uint16_t type, std::size_t set, const Layout& layout,
                    std::span<const KeyBytes> elements);

  std::string table_;
  std::vector<char> bytes_;
  std::uint32_t sequence_ = 1;
  std::size_t last_ = 0;
};

/// A comment as nft(8) keeps it in an object's user data.
template <typename Set>
void with_comment(std::uint8_t type, const std::string& text, Set set,
                  std::optional<std::uint32_t> byte_order = std::nullopt) {
  nftnl_udata_buf* data = nftnl_udata_buf_alloc(NFT_USERDATA_MAXLEN);
  if (byte_order) nftnl_udata_put_u32(data, NFTNL_UDATA_SET_KEYBYTEORDER, *byte_order);
  nftnl_udata_put_strz(data, type, text.substr(0, NFTNL_UDATA_COMMENT_MAXLEN - 1).c_str());
  set(nftnl_udata_buf_data(data), nftnl_udata_buf_len(data));
  nftnl_udata_buf_free(data);
}

void Batch::table_message(std::uint16_t type, std::uint16_t flags) {
  nftnl_table* t = nftnl_table_alloc();
  nftnl_table_set_str(t, NFTNL_TABLE_NAME, table_.c_str());
  if (type == NFT_MSG_NEWTABLE) {
    nftnl_table_set_u32(t, NFTNL_TABLE_FLAGS, NFT_TABLE_F_OWNER);
    with_comment(
        NFTNL_UDATA_TABLE_COMMENT,
        fmt::format("director, PID {}: gone when it ends; director --guard off does without", getpid()),
        [&](void* data, std::uint32_t size) { nftnl_table_set_data(t, NFTNL_TABLE_USERDATA, data, size); });
  }
  message(type, flags, t, nftnl_table_nlmsg_build_payload);
  nftnl_table_free(t);
}

void Batch::new_chain(const std::vector<std::string>& interfaces) {
  std::vector<const char*> names;
  for (const std::string& name : interfaces) names.push_back(name.c_str());
  names.push_back(nullptr);
  nftnl_chain* c = nftnl_chain_alloc();
  nftnl_chain_set_str(c, NFTNL_CHAIN_TABLE, table_.c_str());
  nftnl_chain_set_str(c, NFTNL_CHAIN_NAME, "ingress");
  nftnl_chain_set_str(c, NFTNL_CHAIN_TYPE, "filter");
  nftnl_chain_set_u32(c, NFTNL_CHAIN_HOOKNUM, NF_NETDEV_INGRESS);
  nftnl_chain_set_s32(c, NFTNL_CHAIN_PRIO, 0);
  nftnl_chain_set_u32(c, NFTNL_CHAIN_POLICY, NF_ACCEPT);
  nftnl_chain_set_array(c, NFTNL_CHAIN_DEVICES, names.data());
  with_comment(
      NFTNL_UDATA_CHAIN_COMMENT,
      "hides from this host what the director, which has its copy already, deals with",
      [&](void* data, std::uint32_t size) { nftnl_chain_set_data(c, NFTNL_CHAIN_USERDATA, data, size); });
  message(NFT_MSG_NEWCHAIN, NLM_F_CREATE, c, nftnl_chain_nlmsg_build_payload);
  nftnl_chain_free(c);
}

std::uint32_t set_id(std::size_t set, const Layout& layout) {
  return static_cast<std::uint32_t>(1 + set * 2 + (layout.family == Family::ipv6 ? 1 : 0));
}

void Batch::new_set(std::size_t set, const Layout& layout) {
  const SetKind& kind = kSets[set];
  nftnl_set* s = nftnl_set_alloc();
  nftnl_set_set_str(s, NFTNL_SET_TABLE, table_.c_str());
  nftnl_set_set_str(s, NFTNL_SET_NAME, set_name(set, layout).c_str());
  nftnl_set_set_u32(s, NFTNL_SET_FAMILY, NFPROTO_NETDEV);
  nftnl_set_set_u32(s, NFTNL_SET_ID, set_id(set, layout));
  nftnl_set_set_u32(s, NFTNL_SET_KEY_TYPE, key_type(kind.key, layout));
  nftnl_set_set_u32(s, NFTNL_SET_KEY_LEN, key_size(kind.key, layout));
  with_comment(
      NFTNL_UDATA_SET_COMMENT, kind.comment,
      [&](void* data, std::uint32_t size) { nftnl_set_set_data(s, NFTNL_SET_USERDATA, data, size); },
      kBigEndian);
  message(NFT_MSG_NEWSET, NLM_F_CREATE, s, nftnl_set_nlmsg_build_payload);
  nftnl_set_free(s);
}

void Batch::fill_set(std::size_t set, const Layout& layout, const std::vector<KeyBytes>& elements) {
  for (std::span<const KeyBytes> rest{elements}; !rest.empty();) {
    const std::size_t now = std::min(rest.size(), kElementsPerMessage);
    set_elements(NFT_MSG_NEWSETELEM, set, layout, rest.first(now));
    rest = rest.subspan(now);
  }
}

/// Adds elements, or (NFT_MSG_DELSETELEM without elements) removes all there are.
void Batch::set_elements(std::uint16_t type, std::size_t set, const Layout& layout,
                         std::span<const KeyBytes> elements) {
  nftnl_set* s = nftnl_set_alloc();
  nftnl_set_set_str(s, NFTNL_SET_TABLE, table_.c_str());
  nftnl_set_set_str(s, NFTNL_SET_NAME, set_name(set, layout).c_str());
  nftnl_set_set_u32(s, NFTNL_SET_ID, set_id(set, layout));
  for (const KeyBytes& key : elements) {
    nftnl_set_elem* e = nftnl_set_elem_alloc();
    nftnl_set_elem_set(e, NFTNL_SET_ELEM_KEY, key.data(), static_cast<std::uint32_t>(key.size()));
    nftnl_set_elem_add(s, e);  // the set owns it now
  }
  message(type, type == NFT_MSG_NEWSETELEM ? NLM_F_CREATE : 0, s, nftnl_set_elems_nlmsg_build_payload);
  nftnl_set_free(s);
}

void Batch::new_rule(const char* comment, const std::vector<nftnl_expr*>& expressions) {
  nftnl_rule* r = nftnl_rule_alloc();
  nftnl_rule_set_u32(r, NFTNL_RULE_FAMILY, NFPROTO_NETDEV);
  nftnl_rule_set_str(r, NFTNL_RULE_TABLE, table_.c_str());
  nftnl_rule_set_str(r, NFTNL_RULE_CHAIN, "ingress");
  for (nftnl_expr* e : expressions) nftnl_rule_add_expr(r, e);  // the rule owns them now
  with_comment(NFTNL_UDATA_RULE_COMMENT, comment, [&](void* data, std::uint32_t size) {
    nftnl_rule_set_data(r, NFTNL_RULE_USERDATA, data, size);
  });
  message(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, r, nftnl_rule_nlmsg_build_payload);
  nftnl_rule_free(r);
}

std::vector<char> Batch::finish() {
  reinterpret_cast<nlmsghdr*>(bytes_.data() + last_)->nlmsg_flags |= NLM_F_ACK;
  put([&](char* at) { return nftnl_batch_end(at, sequence_); });
  return std::move(bytes_);
}

// --- rules: what never changes
// ----------------------------------------------------------------------------------------

nftnl_expr* payload(std::uint32_t base, std::uint32_t offset, std::uint32_t size,
                    std::uint32_t to = kRegister) {
  nftnl_expr* e = nftnl_expr_alloc("payload");
  nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_DREG, to);
  nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_BASE, base);
  nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_OFFSET, offset);
  nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_LEN, size);
  return e;
}

nftnl_expr* meta(std::uint32_t key, std::uint32_t to = kRegister) {
  nftnl_expr* e = nftnl_expr_alloc("meta");
  nftnl_expr_set_u32(e, NFTNL_EXPR_META_KEY, key);
  nftnl_expr_set_u32(e, NFTNL_EXPR_META_DREG, to);
  return e;
}

template <typename T>
nftnl_expr* compare(std::uint32_t operation, T value) {
  nftnl_expr* e = nftnl_expr_alloc("cmp");
  nftnl_expr_set_u32(e, NFTNL_EXPR_CMP_SREG, kRegister);
  nftnl_expr_set_u32(e, NFTNL_EXPR_CMP_OP, operation);
  nftnl_expr_set(e, NFTNL_EXPR_CMP_DATA, &value, sizeof value);
  return e;
}

nftnl_expr* masked(Be16 mask) {
  const Be16 zero;
  nftnl_expr* e = nftnl_expr_alloc("bitwise");
  nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_SREG, kRegister);
  nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_DREG, kRegister);
  nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_OP, NFT_BITWISE_BOOL);
  nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_LEN, sizeof mask);
  nftnl_expr_set(e, NFTNL_EXPR_BITWISE_MASK, &mask, sizeof mask);
  nftnl_expr_set(e, NFTNL_EXPR_BITWISE_XOR, &zero, sizeof zero);
  return e;
}

nftnl_expr* in_set(std::size_t set, const Layout& layout) {
  nftnl_expr* e = nftnl_expr_alloc("lookup");
  nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_SREG, kRegister);
  nftnl_expr_set_str(e, NFTNL_EXPR_LOOKUP_SET, set_name(set, layout).c_str());
  nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_SET_ID, set_id(set, layout));
  return e;
}

nftnl_expr* verdict(std::uint32_t code) {
  nftnl_expr* e = nftnl_expr_alloc("immediate");
  nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
  nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_VERDICT, code);
  return e;
}

nftnl_expr* counter() {
  return nftnl_expr_alloc("counter");
}

/// The rules for one family, top to bottom. What isn't named here is the host's.
void add_rules(Batch& batch, const Layout& l) {
  constexpr auto kNetwork = NFT_PAYLOAD_NETWORK_HEADER;
  constexpr auto kTransport = NFT_PAYLOAD_TRANSPORT_HEADER;
  const std::uint32_t second = kRegister + l.address_size / 4;
  const std::uint32_t third = second + 1;
  using Expressions = std::vector<nftnl_expr*>;
  // Every rule begins with the family and ends with a counter and its verdict.
  const auto rule = [&](const char* comment, Expressions match, std::uint32_t code) {
    Expressions all{meta(NFT_META_PROTOCOL), compare(NFT_CMP_EQ, Be16{l.ethertype})};
    all.insert(all.end(), match.begin(), match.end());
    all.insert(all.end(), {counter(), verdict(code)});
    batch.new_rule(comment, all);
  };
  const auto is_icmp_error = [&]() -> Expressions {
    Expressions e{meta(NFT_META_L4PROTO), compare(NFT_CMP_EQ, static_cast<std::uint8_t>(l.icmp)),
                  payload(kTransport, offsetof(IcmpHeader, type), 1)};
    if (l.family == Family::ipv6) {
      e.push_back(compare(NFT_CMP_LT, std::uint8_t{128}));  // RFC 4443, 2.1
    } else {
      e.push_back(compare(NFT_CMP_NEQ, IcmpHeader::kEcho));
      e.push_back(compare(NFT_CMP_NEQ, IcmpHeader::kEchoReply));
    }
    return e;
  };
  const auto quoted_in = [&](std::uint32_t address, std::uint32_t port, std::size_t set) -> Expressions {
    Expressions e = is_icmp_error();
    e.insert(e.end(),
             {payload(kTransport, address, l.address_size), payload(kTransport, l.quoted_protocol, 1, second),
              payload(kTransport, port, 2, third), in_set(set, l)});
    return e;
  };

  rule("to a virtual address", {payload(kNetwork, l.target, l.address_size), in_set(kVirtual, l)}, NF_DROP);
  rule("to a service at an address of this host",
       {payload(kNetwork, l.target, l.address_size), meta(NFT_META_L4PROTO, second),
        payload(kTransport, offsetof(PortsHeader, target), 2, third), in_set(kServed, l)},
       NF_DROP);
  rule("to a service on all ports of an address of this host",
       {payload(kNetwork, l.target, l.address_size), meta(NFT_META_L4PROTO, second), in_set(kServedWhole, l)},
       NF_DROP);
  rule("an error about what such a service sent", quoted_in(l.quoted_source, l.quoted_source_port, kServed),
       NF_DROP);
  rule("the answer to a health check",
       {payload(kTransport, offsetof(PortsHeader, target), 2), compare(NFT_CMP_GTE, Be16{CheckPorts::kFirst}),
        compare(NFT_CMP_LTE, Be16{CheckPorts::kLast}), payload(kNetwork, l.source, l.address_size), meta(NFT_META_L4PROTO, second),
        payload(kTransport, offsetof(PortsHeader, source), 2, third), in_set(kChecked, l)},
       NF_DROP);
  rule("anything else to this host is its own",
       {payload(kNetwork, l.target, l.address_size), in_set(kHost, l)}, NF_ACCEPT);
  rule("the answer of a masqueraded server",
       {payload(kNetwork, l.source, l.address_size), meta(NFT_META_L4PROTO, second),
        payload(kTransport, offsetof(PortsHeader, source), 2, third), in_set(kAnswering, l)},
       NF_DROP);
  rule("the answer of a server masqueraded on all ports",
       {payload(kNetwork, l.source, l.address_size), meta(NFT_META_L4PROTO, second),
        in_set(kAnsweringWhole, l)},
       NF_DROP);
  rule("an error about what was sent to a masqueraded server",
       quoted_in(l.quoted_target, l.quoted_target_port, kAnswering), NF_DROP);
}

void add_vlan_rule(Batch& batch) {
  constexpr auto kLink = NFT_PAYLOAD_LL_HEADER;
  batch.new_rule("a tagged frame belongs to the VLAN interface",
                 {payload(kLink, offsetof(EthernetHeader, type), 2), compare(NFT_CMP_EQ, Be16{ETH_P_8021Q}),
                  payload(kLink, sizeof(EthernetHeader), 2), masked(Be16{0x0fff}),
                  compare(NFT_CMP_NEQ, Be16{0}), counter(), verdict(NF_ACCEPT)});
}

[[noreturn]] void throw_lacking(int error) {
  if (error == EPERM || error == EACCES)
    throw StartupError(
        ExitCode::lacking,
        "the kernel guard needs CAP_NET_ADMIN: run as root, give a container --cap-add NET_ADMIN, or do "
        "without it by --guard off");
  throw StartupError(
      ExitCode::lacking,
      fmt::format(
          "the kernel guard needs nf_tables with its netdev family and owner flag, Linux 5.12 or newer with "
          "CONFIG_NF_TABLES_NETDEV ({}); do without it by --guard off, and see to it yourself that the host "
          "does not answer for the virtual addresses",
          std::strerror(error)));
}

}  // namespace

void KernelGuard::SocketCloser::operator()(mnl_socket* s) const {
  mnl_socket_close(s);
}

KernelGuard::KernelGuard(std::vector<std::string> interfaces)
    : interfaces_(std::move(interfaces)),
      socket_(mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC | SOCK_NONBLOCK)) {
  if (!socket_ || mnl_socket_bind(socket_.get(), 0, MNL_SOCKET_AUTOPID) != 0) throw_lacking(errno);
  const int size = 16 << 20;  // a batch is one send
  setsockopt(mnl_socket_get_fd(socket_.get()), SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);

  Batch first{table_};
  first.new_table();
  int error = commit(first.finish());
  if (error == EEXIST || error == EPERM) {  // there may be another director on other interfaces
    const std::string taken = std::exchange(table_, fmt::format("director-{}", getpid()));
    Batch second{table_};
    second.new_table();
    error = commit(second.finish());
    if (error == 0) log::info("another table has the guard's name", {{"name", taken}, {"ours", table_}});
  }
  if (error != 0) throw_lacking(error);
  exists_ = true;

  if (const auto good = apply({}); !good) throw_lacking(errno);
}

KernelGuard::~KernelGuard() = default;

Result<void> KernelGuard::apply(const GuardPlan& plan) {
  if (installed_ && plan == applied_) return {};
  Batch batch{table_};
  if (!installed_) {
    const auto interfaces = present_interfaces();
    if (exists_) batch.delete_table();
    batch.new_table();
    for (const Layout& layout : kLayouts)
      for (std::size_t set = 0; set < kSetCount; ++set) batch.new_set(set, layout);
    if (!interfaces.empty()) {
      batch.new_chain(interfaces);
      add_vlan_rule(batch);
      for (const Layout& layout : kLayouts) add_rules(batch, layout);
    }
  }
  for (const Layout& layout : kLayouts) {
    for (std::size_t set = 0; set < kSetCount; ++set) {
      if (installed_) batch.flush_set(set, layout);
      batch.fill_set(set, layout, elements_of(set, layout, plan));
    }
  }
  if (const int error = commit(batch.finish()); error != 0) {
    errno = error;
    return fail(fmt::format("the kernel refused the guard's table: {}", std::strerror(error)));
  }
  exists_ = installed_ = true;
  applied_ = plan;
  return {};
}

void KernelGuard::link_changed(const std::string& interface, unsigned index) {
  const auto [known, first] = indexes_.try_emplace(interface, index);
  if (first || index == known->second) return;
  known->second = index;
  if (index != 0) installed_ = false;
}

/// Sends a batch; 0, or the errno of the first message the kernel refused (then nothing of the batch is in
/// force).
int KernelGuard::commit(const std::vector<char>& batch) {
  if (mnl_socket_sendto(socket_.get(), batch.data(), batch.size()) < 0) return errno;
  std::array<char, 32768> buffer;
  int first_error = 0;
  for (;;) {  // netlink answers before sendto returns, so there is nothing to wait for
    const auto size = mnl_socket_recvfrom(socket_.get(), buffer.data(), buffer.size());
    if (size < 0 && errno == ENOBUFS) continue;
    if (size <= 0) return first_error;
    int left = static_cast<int>(size);
    for (const auto* m = reinterpret_cast<const nlmsghdr*>(buffer.data()); mnl_nlmsg_ok(m, left);
         m = mnl_nlmsg_next(m, &left)) {
      if (m->nlmsg_type != NLMSG_ERROR) continue;
      const auto* answer = static_cast<const nlmsgerr*>(mnl_nlmsg_get_payload(m));
      if (answer->error != 0 && first_error == 0) first_error = -answer->error;
    }
  }
}

std::vector<std::string> KernelGuard::present_interfaces() const {
  std::vector<std::string> present;
  for (const std::string& name : interfaces_)
    if (if_nametoindex(name.c_str()) != 0) present.push_back(name);
  return present;
}

}  // namespace director
