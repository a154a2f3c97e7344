// What --help and --version print; no director is needed for that.
#pragma once

#include <string>
#include <string_view>

namespace director::vsadm {

/// `program` as it was called. As ipvsadm it says what ipvsadm's version line says, which scripts look at.
std::string help(std::string_view program);
std::string version(std::string_view program);

}  // namespace director::vsadm
