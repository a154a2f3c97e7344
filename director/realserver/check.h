// `check`: whether this host can do its part for a VIP, a line each: ok, or what to do.
#pragma once

#include "director/realserver/failure.h"
#include "director/realserver/options.h"

namespace director::realserver {

/// ok when every line is ok, failed when something is to be done, lacking when something could not be looked
/// at.
[[nodiscard]] ExitCode check(const Options& options);

}  // namespace director::realserver
