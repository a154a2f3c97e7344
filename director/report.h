// Report: what the log says of the director: when it starts and stops, and what happens in between (events.h).
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "director/core/balancer.h"
#include "director/events.h"
#include "director/io/device.h"
#include "director/log.h"

namespace director {

/// Which version, devices with which offloads, services with which methods.
void report_start(std::span<const DeviceSpec> specs, std::span<const std::unique_ptr<Device>> devices,
                  const Balancer& balancer);
/// Changes of services and the like that were made, each with who made them. Of very many only the first.
void report_changes(std::span<const Change> changes, log::Fields by);
void report(const Event& event);
/// What became of the frames, by reason.
void report_stop(const Balancer& balancer);

}  // namespace director
