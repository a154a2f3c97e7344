// check(): what makes a service or a real server acceptable by itself, whatever else is in the table.
//
// Used by Balancer::apply() and by those who judge changes before any is applied (plan.h).
#pragma once

#include "director/base/result.h"
#include "director/core/change.h"

namespace director {

[[nodiscard]] Result<void, Refusal> check(const ServiceConfig& config);
[[nodiscard]] Result<void, Refusal> check(const ServiceKey& service, const ServerConfig& config);

}  // namespace director
