// The ledger: which VIPs this host serves, and what `realserver up` changed for them, so that `down` can put
// it back.
//
// A text file per network namespace, one line a fact:
//
//   namespace 12 0f3c1c5e-...              the namespace's cookie and the boot it belongs to
//   serves dr 10.9.0.100
//   changed any sysctl net.ipv4.conf.all.arp_ignore 0 1
//   changed 10.9.0.100 address lo absent present
//
// "changed FOR KIND WHAT BEFORE AFTER": FOR says how long the change is needed: while a VIP is served in
// `any` mode, while one is served by `tun`, or while that VIP is. Pure text and rules; the file itself is
// ledger_file.h's business.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "director/base/result.h"
#include "director/net/address.h"
#include "director/realserver/tunnel_end.h"

namespace director::realserver {

/// How packets reach this host: unchanged (VS/DR) or in a tunnel (VS/TUN).
enum class Mode : std::uint8_t { dr, tun };

struct Service {
  Mode mode = Mode::dr;
  IpAddress vip;
  std::vector<TunnelEnd> tunnels = {};  ///< Mode::tun: what its packets come in; none named: bare ones

  [[nodiscard]] bool same(const Service& other) const { return mode == other.mode && vip == other.vip; }
  /// The tunnels, of a bare one the kind that has the VIP's family inside.
  [[nodiscard]] std::vector<TunnelEnd> ends() const;
  friend bool operator==(const Service&, const Service&) = default;
};

/// How long a change is needed.
struct Need {
  enum class While : std::uint8_t { any, tun, vip };
  While served = While::any;
  IpAddress vip;  ///< While::vip only
  friend bool operator==(const Need&, const Need&) = default;
};

struct Change {
  enum class Kind : std::uint8_t {
    sysctl,   ///< what: its dotted name; before, after: its values
    address,  ///< what: "10.9.0.100/32@lo"; "absent", "present"
    link,     ///< what: an interface's name; "absent", "down" or "up"
  };
  Need need;
  Kind kind = Kind::sysctl;
  std::string what;
  std::string before;
  std::string after;
  friend bool operator==(const Change&, const Change&) = default;
};

struct Ledger {
  std::string name_space;  ///< identity of the network namespace: an old file of another one is not believed
  std::vector<Service> services;
  std::vector<Change> changes;  ///< in the order they were made

  /// The service's own entry; nullptr: there is none.
  [[nodiscard]] Service* find(const Service& s);
  [[nodiscard]] bool needs(const Need& need) const;
  /// The VIPs served in a mode, in the order they were taken up.
  [[nodiscard]] std::vector<IpAddress> vips(Mode mode) const;
  /// The latest change nobody needs any more, none when all are still needed: the order to undo them in.
  [[nodiscard]] std::optional<std::size_t> latest_unneeded() const;
};

[[nodiscard]] std::string write_ledger(const Ledger& ledger);
[[nodiscard]] Result<Ledger> read_ledger(std::string_view text);

std::string format_as(Mode mode);  ///< "dr", "tun"
std::optional<Mode> parse_mode(std::string_view text);
std::string format_as(
    const Change& change);  ///< "net.ipv4.conf.all.arp_ignore: 0 -> 1", "10.9.0.100/32 on lo: ..."

}  // namespace director::realserver
