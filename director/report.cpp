// The lines of the log, first to last.
#include "director/report.h"

#include <fmt/format.h>
#include <unistd.h>

#include "director/http/metrics.h"
#include "director/log.h"

namespace director {
namespace {

/// "2 masq, 1 direct"
std::string methods_of(const Service& service) {
  std::array<std::size_t, 3> count{};
  for (const RealServer* server : service.servers) ++count[static_cast<std::size_t>(server->config.method)];
  constexpr std::array<std::string_view, 3> kNames{"masq", "tunnel", "direct"};
  std::string text;
  for (std::size_t i = 0; i < count.size(); ++i)
    if (count[i] != 0) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count[i], kNames[i]);
  return text.empty() ? "none" : text;
}

/// A rules file may have a hundred thousand lines, the log of a day shouldn't.
constexpr std::size_t kMostChanges = 100;

}  // namespace

void report_start(std::span<const DeviceSpec> specs, std::span<const std::unique_ptr<Device>> devices,
                  const Balancer& balancer) {
  log::info("started", {{"version", DIRECTOR_VERSION}, {"process", getpid()}});
  for (std::size_t i = 0; i < devices.size(); ++i)
    log::info("device", {{"name", specs[i].name}, {"is", devices[i]->describe()}});
  for (const Service* service : balancer.services())
    log::info("service", {{"service", service_label(service->key())},
                          {"scheduler", service->config.scheduler},
                          {"servers", methods_of(*service)}});
  if (balancer.services().empty()) log::info("no services yet: vsadm -A adds one");
}

void report(const Event& event) {
  log::write(event.level, event.message, event.fields);
}

void report_changes(std::span<const Change> changes, log::Fields by) {
  std::size_t told = 0;
  for (const Change& change : changes) {
    auto event = event_of(change);
    if (!event) continue;
    if (++told > kMostChanges) continue;
    event->fields.insert(event->fields.end(), by.begin(), by.end());
    report(*event);
  }
  if (told > kMostChanges) {
    Event rest{log::Level::info, "more changes", {{"changes", told - kMostChanges}}};
    rest.fields.insert(rest.fields.end(), by.begin(), by.end());
    report(rest);
  }
}

void report_stop(const Balancer& balancer) {
  for (std::size_t i = 0; i < kReasonCount; ++i) {
    const auto reason = static_cast<Reason>(i);
    if (const std::uint64_t frames = balancer.counters()[reason]; frames != 0)
      log::info("counted", {{"reason", name_of(reason)}, {"frames", frames}, {"text", text_of(reason)}});
  }
  log::info("stopped");
}

}  // namespace director
