// Report: what the log says of the whole when the director starts and stops.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "director/core/balancer.h"
#include "director/io/device.h"

namespace director {

/// Which devices with which offloads, which services with which methods.
void report_start(std::span<const DeviceSpec> specs, std::span<const std::unique_ptr<Device>> devices,
                  const Balancer& balancer);
/// What became of the frames, by reason.
void report_stop(const Balancer& balancer);

}  // namespace director
