/* What both halves of the opener know: kernel_opener.bpf.c (C, in the kernel) and kernel_opener.cpp. Addresses as IPv6 ones, IPv4 mapped. */
#pragma once

#include <linux/types.h>

#define OPENER_ADDRESSES 65536

enum { OPENER_OWN = 1, OPENER_VIP = 2 }; /* what an address is, as bits */

struct opener_address {
  __u8 bytes[16];
};

struct opener_settings {
  __u32 interface; /* that opened packets appear on */
  __u8 opens4;     /* IPv4 inside: ipip */
  __u8 opens6;     /* IPv6 inside: sit */
  __u8 has_mac;
  __u8 mac[6]; /* of the interface */
  __u8 zero[3];
};
