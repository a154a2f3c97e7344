// check(): what makes a service or a real server acceptable by itself, whatever else is in the table.
//
// Used by Balancer::apply() and by those who judge changes before any is applied (plan.h).
#pragma once

#include "director/base/result.h"
#include "director/core/change.h"

namespace director {

[[nodiscard]] Result<void, Refusal> check(const ServiceConfig& config);
[[nodiscard]] Result<void, Refusal> check(const ServiceKey& service, const ServerConfig& config);

/// A rule behind the others, or refused: it is there already.
[[nodiscard]] Result<void, Refusal> add_class_rule(std::vector<ClassRule>& rules, const ClassRule& rule);
/// All rules of a class go, or refused: there is none.
[[nodiscard]] Result<void, Refusal> delete_class(std::vector<ClassRule>& rules, std::uint32_t mark);

}  // namespace director
