// SPDX-License-Identifier: GPL-2.0-or-later
// The kernel's half of the opener (kernel_opener.h): takes the outer header off plain tunnelled packets where they come to an interface
// (tcx), and lets them appear on the decapsulator's. What it takes is what decapsulate() would deliver, unchanged; all others pass, and
// come to the decapsulator as without it.
//
// Super-frames and partial checksums pass whole: the helpers know both.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "director/io/bpf_ip.h"
#include "director/realserver/kernel_opener_map.h"

// Linux 6.3: newer than Debian 12's headers.
#define DECAP_L3_IPV4 (1ULL << 7)
#define DECAP_L3_IPV6 (1ULL << 8)

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, OPENER_ADDRESSES);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct opener_address);
  __type(value, __u8);
} addresses SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct opener_settings);
} settings SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, __u64);
} delivered SEC(".maps");

/// An IP header without options or extensions, whose packet ends where the frame does.
struct layer {
  struct opener_address target;
  __u32 size; /* of the header */
  __u8 protocol;
  __u8 ecn;
};

/// 0: it isn't one, or its source is nobody's.
static __always_inline int read4(struct __sk_buff *skb, __u32 at, int is_outer, struct layer *layer) {
  struct iphdr ip;
  if (bpf_skb_load_bytes(skb, at, &ip, sizeof ip) < 0) return 0;
  if (ip.version != 4 || ip.ihl != 5 || bpf_ntohs(ip.tot_len) != skb->len - at) return 0;
  if (is_outer) {
    const __u8 first = ((const __u8 *)&ip.saddr)[0];
    if (ip.frag_off & bpf_htons(0x3fff) || first >= 224 || !ip.saddr || header_sum(&ip) != 0xffff) return 0;
  }
  as_mapped(layer->target.bytes, ip.daddr);
  layer->size = sizeof ip;
  layer->protocol = ip.protocol;
  layer->ecn = ip.tos & 3;
  return 1;
}

static __always_inline int read6(struct __sk_buff *skb, __u32 at, int is_outer, struct layer *layer) {
  struct ipv6hdr ip;
  if (bpf_skb_load_bytes(skb, at, &ip, sizeof ip) < 0) return 0;
  if (ip.version != 6 || bpf_ntohs(ip.payload_len) != skb->len - at - sizeof ip) return 0;
  if (is_mapped(&ip.saddr) || is_mapped(&ip.daddr)) return 0;  // they mean IPv4 ones in the map, and stand on no wire
  if (is_outer && (ip.saddr.s6_addr[0] == 0xff || !(ip.saddr.s6_addr32[0] | ip.saddr.s6_addr32[1] | ip.saddr.s6_addr32[2] |
                                                    ip.saddr.s6_addr32[3])))
    return 0;
  __builtin_memcpy(layer->target.bytes, &ip.daddr, 16);
  layer->size = sizeof ip;
  layer->protocol = ip.nexthdr;
  layer->ecn = ip.flow_lbl[0] >> 4 & 3;
  return 1;
}

static __always_inline int is_known(const struct opener_address *address, __u8 as) {
  const __u8 *known = bpf_map_lookup_elem(&addresses, address);
  return known && *known & as;
}

SEC("tc")
int open_tunnel(struct __sk_buff *skb) {
  const __u32 only = 0;
  struct layer outer = {}, inner = {};
  if (skb->pkt_type != PACKET_HOST || skb->vlan_present) return TC_ACT_UNSPEC;
  const struct opener_settings *set = bpf_map_lookup_elem(&settings, &only);
  if (!set) return TC_ACT_UNSPEC;

  if (skb->protocol == bpf_htons(ETH_P_IP)) {
    if (!read4(skb, ETH_HLEN, 1, &outer)) return TC_ACT_UNSPEC;
  } else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
    if (!read6(skb, ETH_HLEN, 1, &outer)) return TC_ACT_UNSPEC;
  } else {
    return TC_ACT_UNSPEC;
  }
  const int is_v4 = outer.protocol == IPPROTO_IPIP;
  if (is_v4 ? !set->opens4 : outer.protocol != IPPROTO_IPV6 || !set->opens6) return TC_ACT_UNSPEC;
  if (!is_known(&outer.target, OPENER_OWN)) return TC_ACT_UNSPEC;
  const __u32 at = ETH_HLEN + outer.size;
  if (!(is_v4 ? read4(skb, at, 0, &inner) : read6(skb, at, 0, &inner))) return TC_ACT_UNSPEC;
  if (!is_known(&inner.target, OPENER_VIP)) return TC_ACT_UNSPEC;
  if (outer.ecn && outer.ecn != inner.ecn) return TC_ACT_UNSPEC;  // RFC 6040 may change or drop the one inside

  // What the interface said of the checksum is about the first one in the packet, which is the inner one.
  const __u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET | (is_v4 ? DECAP_L3_IPV4 : DECAP_L3_IPV6);
  if (bpf_skb_adjust_room(skb, -(__s32)outer.size, BPF_ADJ_ROOM_MAC, flags) < 0) return TC_ACT_UNSPEC;
  const __be16 type = is_v4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
  bpf_skb_store_bytes(skb, 12, &type, sizeof type, 0);
  if (set->has_mac) bpf_skb_store_bytes(skb, 0, set->mac, sizeof set->mac, 0);
  __u64 *count = bpf_map_lookup_elem(&delivered, &only);
  if (count) ++*count;
  return bpf_redirect(set->interface, BPF_F_INGRESS);
}

char LICENSE[] SEC("license") = "GPL";
