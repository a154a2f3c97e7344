// The tables as the kernel's IPVS shows them below /proc/net, for programs that read those files instead of asking ipvsadm.
//
// Pure: values in, text out, to the byte of Linux 6.1 (ip_vs_ctl.c, ip_vs_conn.c): addresses and ports in hexadecimal, persistence in
// hundredths of a second. Used by the mirror of --proc-dir and by replay for a case's `cat /proc/net/ip_vs`.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "director/base/time.h"
#include "director/core/balancer.h"

namespace director {

/// The files there are, below net/: "ip_vs", "ip_vs_conn", ...
[[nodiscard]] std::span<const std::string_view> proc_files();
/// The text of one of them; nothing: there is no such file.
[[nodiscard]] std::optional<std::string> proc_text(std::string_view file, const Balancer& balancer, Instant now);

}  // namespace director
