/* The map both halves of a shortcut read: kernel_path.bpf.c (C, in the kernel) and kernel_path.cpp. Addresses as IPv6 ones, IPv4 mapped;
 * ports and addresses in network order. */
#pragma once

#include <linux/types.h>

#define KERNEL_PATHS 65536 /* at most so many flows; the others walk */

struct path_key {
  __u8 source[16];
  __u8 target[16];
  __be16 source_port;
  __be16 target_port;
  __u8 protocol;
  __u8 zero[3];
};

enum { PATH_REWRITES_NOTHING, PATH_REWRITES_TARGET, PATH_REWRITES_SOURCE };

struct path {
  __u64 packets; /* carried, on the wire: a super-frame is as many as it will be cut into */
  __u64 bytes;   /* of them, IP headers included */
  __u64 last;    /* when, CLOCK_MONOTONIC in nanoseconds */
  __u32 egress;  /* interface index */
  __u32 mtu;
  __be16 port;
  __u8 rewrite;
  __u8 protocol;
  __u8 address[16];
  __u8 ethernet[12]; /* target and source MAC it leaves with */
  __u16 here[3];     /* target MAC it comes with: others aren't for the director */
  __u8 is_tap;       /* of the egress */
  __u8 outer;        /* IP version of the header put in front: 4 or 6; 0: none */
  __u8 outer_source[16];
  __u8 outer_target[16];
};
