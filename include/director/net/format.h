// Packet text: a packet as one line for people, and a line as a packet.
//
//   tcp 203.0.113.5:4000 > 10.9.9.9:80 [S] ttl=63 df
//   udp 10.9.0.1:4001 > 10.9.0.100:53 len=30 csum=none
//   icmp 10.9.0.100 > 10.9.0.1 frag-needed mtu=1480 about(udp 10.9.0.1:4001 > 10.9.0.100:53 quote=28
//   len=1472) ipip 10.9.0.2 > 10.9.0.11 ttl=63 (tcp 203.0.113.5:4000 > 10.9.9.9:80 [S] ttl=63) arp
//   who-has 10.9.0.11 tell 10.9.0.2 ip 10.9.0.1 > 10.9.0.100 udp id=7 offset=1480 len=20          (a later
//   fragment, or a protocol without ports)
//   tcp [2001:db8::5]:4000 > [2001:db8::100]:80 [S] ttl=63      (IPv6 in the same words, ttl= is the hop limit)
//   nd 2001:db8::5 > ff02::1:ff00:100 who-has 2001:db8::100 slla=02:00:00:00:00:05
//   nd 2001:db8::100 > 2001:db8::5 has 2001:db8::100 tlla=02:00:00:00:00:02 solicited override
//   mld fe80::1 > ff02::1 query       mld fe80::2 > ff02::16 report groups=ff02::1:ff00:100 record=4
//   gre 10.9.0.2 > 10.9.0.11 csum=ok (PACKET)      gue 10.9.0.2 > 10.9.0.11 csum=none sport=40001 (PACKET)
//
// A line is a head (protocol, who to whom, what), then fields `name=value` and flags in any order, then
// perhaps a packet inside parentheses. What isn't said has its usual value: TTL 64, TOS 0, ID 0, no payload,
// checksums as they should be. Used by transcripts, golden tests, `director explain` and messages; never in
// the packet path.
//
//   any     smac= dmac= pad=        Ethernet: addresses, bytes of padding
//   IPv4    ttl= tos= id= df mf rf offset= options=HEX ipcsum=bad|0xNNNN iplen=   (rf: the reserved flag;
//   offset in bytes) TCP     [SFRPAUEC] seq= ack= win= urg= opts=HEX doff= UDP     ulen= ICMP    echo-request
//   echo-reply ident= seq= · net- host- protocol- port-unreachable · frag-needed mtu= · source-quench
//           redirect gw= · ttl-exceeded · parameter-problem · typeN/CODE rest=
//   IPv6    ttl= tos= (traffic class) flow= (label) id= mf offset= atomic (fragment header) iplen=
//           ext=N/HEX,N/HEX extension headers by number, without their first byte; fext= those behind the fragment header
//   ICMPv6  as ICMP, and no-route · too-big mtu= · unknown-next-header
//   nd      slla= tlla= (link-layer addresses) router solicited override ndopts=HEX (all options, when there are others)
//   mld     query group= v1 · report v1 group= · report record= groups=A,B
//   gre gue csum=none|ok|bad, of the tunnel (gue: to UDP port 6080); gue remote=START+OFFSET, a checksum left to the far end
//   all     csum=bad|none|partial|0xNNNN  len= data=HEX  quote= (bytes present of a quoted packet)  gso=
//   (segment size)
//
// Payload without data= is "abc…xyzabc…"; payload that is something else and long is printed as its sum,
// datasum=, which can be compared but not built from.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "director/base/result.h"
#include "director/net/address.h"
#include "director/net/offload.h"

namespace director {

/// A packet's description, as a tree: what lines are printed from and parsed into.
struct PacketText {
  struct Field {
    enum class Weight : std::uint8_t {
      usual,    ///< has its usual value; only a full line says it
      plain,    ///< a detail: only a full line says it
      notable,  ///< every line says it
      alarm,    ///< something is wrong or odd: a line that is silent about it doesn't match
    };
    std::string name;
    std::string value;  ///< empty for a flag
    Weight weight = Weight::notable;
    std::string exact = {};  ///< the value to the bit, where `value` says less: csum=bad, exactly csum=0x1234
  };

  std::string head;
  std::vector<Field> fields;
  std::string inner_label;        ///< "about" of an ICMP error's quotation, "" of what a tunnel carries
  std::vector<PacketText> inner;  ///< none or one

  [[nodiscard]] const Field* find(std::string_view name) const;
};

enum class Detail : std::uint8_t {
  brief,  ///< for reading
  full,  ///< every field, exactly: equal lines are equal frames, as long as the payload is short or the usual
         ///< one
};

/// Of a frame that begins with its Ethernet header. Never fails: what can't be understood is printed as
/// bytes.
[[nodiscard]] PacketText describe_frame(std::span<const std::byte> frame, const Offload& offload = {});
/// Of a packet that begins with its IP header.
[[nodiscard]] PacketText describe_packet(std::span<const std::byte> packet);

[[nodiscard]] std::string to_line(const PacketText& text, Detail detail);
[[nodiscard]] inline std::string packet_line(std::span<const std::byte> frame, Detail detail = Detail::brief,
                                             const Offload& offload = {}) {
  return to_line(describe_frame(frame, offload), detail);
}

/// The tree a line says, without asking what it means.
Result<PacketText> parse_line(std::string_view line);

/// What is wrong with `actual` if `expected` is what a line says it should be: heads equal, every field of
/// `expected` there with its value, no alarm that `expected` doesn't mention. Empty: nothing.
[[nodiscard]] std::string mismatch(const PacketText& expected, const PacketText& actual);

struct BuiltFrame {
  std::vector<std::byte> bytes;
  Offload offload;
};
/// The frame a line says; `source` and `target` are its MAC addresses unless it has smac= and dmac=.
Result<BuiltFrame> build_frame(std::string_view line, const MacAddress& source, const MacAddress& target);

}  // namespace director
