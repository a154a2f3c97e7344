/* What programs for the kernel (X.bpf.c) ask of IP headers. */
#pragma once

#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/types.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define IP_DF 0x4000 /* as in netinet/ip.h, which doesn't go with linux/ip.h */

/// The one's complement sum of a header without options: 0xffff if its checksum is right, its complement is what to fill in for 0.
static __always_inline __u16 header_sum(struct iphdr *ip) {
  __u32 sum = bpf_csum_diff(0, 0, (__be32 *)ip, sizeof *ip, 0);
  sum = (sum & 0xffff) + (sum >> 16);
  return (sum & 0xffff) + (sum >> 16);
}

/// In the maps an IPv4 address is ::ffff:a.b.c.d, which stands on no wire (RFC 4291, 2.5.5.2).
static __always_inline void as_mapped(__u8 to[16], __be32 v4) {
  __builtin_memset(to, 0, 10);
  to[10] = to[11] = 0xff;
  __builtin_memcpy(to + 12, &v4, 4);
}
static __always_inline int is_mapped(const struct in6_addr *a) {
  return !a->s6_addr32[0] && !a->s6_addr32[1] && a->s6_addr32[2] == bpf_htonl(0xffff);
}
