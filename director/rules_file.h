// The rules file: read at the start and again on SIGHUP, always all of it or nothing.
#pragma once

#include <string>
#include <vector>

#include "director/base/startup_error.h"
#include "director/core/balancer.h"
#include "director/options.h"

namespace director {

/// The changes that make the balancer's table what the file says; none for an empty name. The error is
/// file:line:column and what was expected.
[[nodiscard]] Result<std::vector<Change>> plan_rules_file(const Balancer& balancer, const std::string& file);
/// At the start. Throws StartupError.
[[nodiscard]] std::vector<Change> plan_first_rules(const Balancer& balancer, const std::string& file);
/// --check: says all that is wrong with the file, on standard error or, for programs, as JSON on standard output.
[[nodiscard]] ExitCode check_rules_file(const std::string& file, Told told);
/// On SIGHUP: one transaction, or a logged error and nothing changed.
void reload_rules_file(Balancer& balancer, const std::string& file, Instant now);

}  // namespace director
