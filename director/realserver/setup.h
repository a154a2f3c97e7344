// `up` and `down`: the changes a real server needs, made once, written down, and put back.
#pragma once

#include "director/realserver/failure.h"
#include "director/realserver/options.h"
#include "director/realserver/rtnetlink.h"

namespace director::realserver {

[[nodiscard]] ExitCode up(const Options& options);
[[nodiscard]] ExitCode down(const Options& options);

/// The kernel's own decapsulator for inner packets of a family, if it has one already: an interface of the
/// ipip or sit module that takes tunnels from anywhere.
[[nodiscard]] std::optional<Link> kernel_tunnel(RtNetlink& kernel, Family inner);

}  // namespace director::realserver
