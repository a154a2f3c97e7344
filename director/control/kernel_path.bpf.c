// SPDX-License-Identifier: GPL-2.0-or-later
// The kernel's half of a shortcut (include/director/core/shortcut.h): repeats, for the plain packets of an established connection, what
// the director decided for its first ones. Two programs share one question, path_of():
//
//   keep_for_director   on the director's packet socket: what a shortcut carries isn't copied to it
//   forward             where frames come to the director (tcx): at an interface's entry, or at a TAP's exit, before they would be read
//                       from it. Rewrites as the path says, puts a tunnel's header in front, and sends the frame where the director
//                       would: out of the interface, or in by the TAP as if it had been written to it.
//
// Super-frames and partial checksums pass whole: the helpers know both.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "director/control/kernel_path_map.h"
#include "director/io/bpf_ip.h"

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, KERNEL_PATHS);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct path_key);
  __type(value, struct path);
} paths SEC(".maps");

/// Where in the frame what is rewritten stands.
struct place {
  __u32 transport;
  __u32 headers; /* bytes before the payload, from the frame's first */
  __u32 ip_length;
  __u8 ttl;
  __u8 tos;
  int dont_fragment;
  int is_v4;
};

/// The path of a packet that may take it; 0: it is for the director, or for nobody here.
static __always_inline struct path *path_of(struct __sk_buff *skb, struct place *at) {
  struct path_key key = {};

  if (skb->vlan_present) return 0;
  if (skb->protocol == bpf_htons(ETH_P_IP)) {
    struct iphdr ip;
    if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof ip) < 0) return 0;
    if (ip.version != 4 || ip.ihl != 5 || ip.ttl <= 1) return 0;
    if (ip.frag_off & bpf_htons(0x3fff)) return 0;
    as_mapped(key.source, ip.saddr);
    as_mapped(key.target, ip.daddr);
    key.protocol = ip.protocol;
    at->is_v4 = 1;
    at->ttl = ip.ttl;
    at->tos = ip.tos;
    at->dont_fragment = (ip.frag_off & bpf_htons(IP_DF)) != 0;
    at->transport = ETH_HLEN + sizeof ip;
    at->ip_length = bpf_ntohs(ip.tot_len);
  } else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
    struct ipv6hdr ip;
    if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof ip) < 0) return 0;
    if (ip.version != 6 || ip.hop_limit <= 1) return 0;
    if (is_mapped(&ip.daddr)) return 0;
    __builtin_memcpy(key.source, &ip.saddr, 16);
    __builtin_memcpy(key.target, &ip.daddr, 16);
    key.protocol = ip.nexthdr;
    at->is_v4 = 0;
    at->ttl = ip.hop_limit;
    at->tos = ip.priority << 4 | ip.flow_lbl[0] >> 4;
    at->dont_fragment = 0;
    at->transport = ETH_HLEN + sizeof ip;
    at->ip_length = bpf_ntohs(ip.payload_len) + sizeof ip;
  } else {
    return 0;
  }

  if (key.protocol == IPPROTO_TCP) {
    __u8 tcp[20];
    if (bpf_skb_load_bytes(skb, at->transport, tcp, sizeof tcp) < 0) return 0;
    if (tcp[13] & 0x07) return 0;  // FIN, SYN, RST: they change the connection's state
    __builtin_memcpy(&key.source_port, tcp, 2);
    __builtin_memcpy(&key.target_port, tcp + 2, 2);
    at->headers = at->transport + (tcp[12] >> 4) * 4;
  } else if (key.protocol == IPPROTO_UDP) {
    struct udphdr udp;
    if (bpf_skb_load_bytes(skb, at->transport, &udp, sizeof udp) < 0) return 0;
    if (!udp.check) return 0;  // none (RFC 768): the director's policy says what becomes of it
    key.source_port = udp.source;
    key.target_port = udp.dest;
    at->headers = at->transport + sizeof udp;
  } else {
    return 0;
  }

  struct path *path = bpf_map_lookup_elem(&paths, &key);
  if (!path) return 0;
  __u16 to[3];
  if (bpf_skb_load_bytes(skb, 0, to, sizeof to) < 0) return 0;
  if (to[0] != path->here[0] || to[1] != path->here[1] || to[2] != path->here[2]) return 0;
  if (at->ip_length > skb->len - ETH_HLEN || at->headers > at->ip_length + ETH_HLEN) return 0;
  if (path->outer && at->ip_length > 65535 - sizeof(struct ipv6hdr)) return 0;  // it is cut for its tunnel
  __u32 wire = skb->gso_size ? at->headers - ETH_HLEN + skb->gso_size : at->ip_length;
  if (wire > path->mtu) return 0;
  return path;
}

/// The outer header, as forward/tunnel.cpp writes it; fails for want of memory.
static __always_inline int put_in_front(struct __sk_buff *skb, const struct path *path, const struct place *at) {
  const int is_v4 = path->outer == 4;
  const __u32 length = skb->len - ETH_HLEN;
  const __be16 type = is_v4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
  const __u8 inside = at->is_v4 ? IPPROTO_IPIP : IPPROTO_IPV6;
  const __u8 tos = (at->tos & 3) == 3 ? at->tos & ~1 : at->tos;  // CE inside is ECT(0) outside

  if (is_v4) {
    if (bpf_skb_adjust_room(skb, sizeof(struct iphdr), BPF_ADJ_ROOM_MAC,
                            BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_FIXED_GSO) < 0)
      return -1;
    struct iphdr ip = {.version = 4, .ihl = 5, .tos = tos, .ttl = at->ttl - 1, .protocol = inside};
    ip.tot_len = bpf_htons(length + sizeof ip);
    ip.frag_off = at->dont_fragment ? bpf_htons(IP_DF) : 0;
    ip.id = at->dont_fragment ? 0 : bpf_get_prandom_u32();
    __builtin_memcpy(&ip.saddr, path->outer_source + 12, 4);
    __builtin_memcpy(&ip.daddr, path->outer_target + 12, 4);
    ip.check = ~header_sum(&ip);
    bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof ip, 0);
  } else {
    if (bpf_skb_adjust_room(skb, sizeof(struct ipv6hdr), BPF_ADJ_ROOM_MAC,
                            BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 | BPF_F_ADJ_ROOM_FIXED_GSO) < 0)
      return -1;
    struct ipv6hdr ip = {.version = 6, .priority = tos >> 4, .flow_lbl = {tos << 4}, .nexthdr = inside, .hop_limit = at->ttl - 1};
    ip.payload_len = bpf_htons(length);
    __builtin_memcpy(&ip.saddr, path->outer_source, 16);
    __builtin_memcpy(&ip.daddr, path->outer_target, 16);
    bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof ip, 0);
  }
  return bpf_skb_store_bytes(skb, 12, &type, 2, 0);
}

SEC("socket")
int keep_for_director(struct __sk_buff *skb) {
  struct place at;
  return path_of(skb, &at) ? 0 : -1;
}

SEC("tc")
int forward(struct __sk_buff *skb) {
  struct place at;
  struct path *path = path_of(skb, &at);
  if (!path) return TC_ACT_UNSPEC;

  // Ethernet pads to 60 bytes; the padding isn't the packet's.
  if (at.ip_length < skb->len - ETH_HLEN && bpf_skb_change_tail(skb, ETH_HLEN + at.ip_length, 0) < 0) return TC_ACT_UNSPEC;

  __u32 length = skb->len - ETH_HLEN;
  __u32 packets = skb->gso_segs > 1 ? skb->gso_segs : 1;
  __sync_fetch_and_add(&path->packets, packets);
  __sync_fetch_and_add(&path->bytes, length + (packets - 1) * (at.headers - ETH_HLEN));
  path->last = bpf_ktime_get_ns();

  if (path->rewrite != PATH_REWRITES_NOTHING) {
    const int source = path->rewrite == PATH_REWRITES_SOURCE;
    const __u32 checksum = at.transport + (path->protocol == IPPROTO_TCP ? 16 : 6);
    const __u64 mangled = path->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
    const __u32 port_at = at.transport + (source ? 0 : 2);
    __be16 port;
    __s64 difference;
    if (at.is_v4) {
      const __u32 address_at = ETH_HLEN + (source ? 12 : 16);
      __be32 before, after;
      __builtin_memcpy(&after, path->address + 12, 4);
      if (bpf_skb_load_bytes(skb, address_at, &before, 4) < 0) return TC_ACT_SHOT;
      difference = bpf_csum_diff(&before, 4, &after, 4, 0);
      bpf_l3_csum_replace(skb, ETH_HLEN + 10, 0, difference, 0);
      bpf_skb_store_bytes(skb, address_at, &after, 4, 0);
    } else {
      const __u32 address_at = ETH_HLEN + (source ? 8 : 24);
      __be32 before[4];
      if (bpf_skb_load_bytes(skb, address_at, before, 16) < 0) return TC_ACT_SHOT;
      difference = bpf_csum_diff(before, 16, (__be32 *)path->address, 16, 0);
      bpf_skb_store_bytes(skb, address_at, path->address, 16, 0);
    }
    bpf_l4_csum_replace(skb, checksum, 0, difference, BPF_F_PSEUDO_HDR | mangled);
    if (bpf_skb_load_bytes(skb, port_at, &port, 2) < 0) return TC_ACT_SHOT;
    if (port != path->port) {
      bpf_l4_csum_replace(skb, checksum, port, path->port, 2 | mangled);
      bpf_skb_store_bytes(skb, port_at, &path->port, 2, 0);
    }
  }

  const __u8 ttl = at.ttl - 1;
  if (at.is_v4) {
    bpf_l3_csum_replace(skb, ETH_HLEN + 10, bpf_htons(at.ttl << 8), bpf_htons(ttl << 8), 2);
    bpf_skb_store_bytes(skb, ETH_HLEN + 8, &ttl, 1, 0);
  } else {
    bpf_skb_store_bytes(skb, ETH_HLEN + 7, &ttl, 1, 0);
  }
  if (path->outer && put_in_front(skb, path, &at) < 0) return TC_ACT_SHOT;  // the director has no copy of it
  bpf_skb_store_bytes(skb, 0, path->ethernet, 12, 0);
  return bpf_redirect(path->egress, path->is_tap ? BPF_F_INGRESS : 0);
}

char LICENSE[] SEC("license") = "GPL";
