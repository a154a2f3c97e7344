// The table of schedulers, made from schedulers.def.
#include "director/core/scheduler.h"

namespace director {

#define SCHEDULER(function, name, takes, passes_over) std::unique_ptr<Scheduler> make_##function(SchedulerFlags flags);
#include "director/schedule/schedulers.def"
#undef SCHEDULER

namespace {

constexpr std::string_view kNames[] = {
#define SCHEDULER(function, name, takes, passes_over) name,
#include "director/schedule/schedulers.def"
#undef SCHEDULER
};

using Maker = std::unique_ptr<Scheduler> (*)(SchedulerFlags);
constexpr Maker kMakers[] = {
#define SCHEDULER(function, name, takes, passes_over) make_##function,
#include "director/schedule/schedulers.def"
#undef SCHEDULER
};
constexpr SchedulerWords kWords[] = {
#define SCHEDULER(function, name, takes, passes_over) {takes, passes_over},
#include "director/schedule/schedulers.def"
#undef SCHEDULER
};

}  // namespace

std::unique_ptr<Scheduler> make_scheduler(std::string_view name, SchedulerFlags flags) {
  for (std::size_t i = 0; i < std::size(kNames); ++i)
    if (kNames[i] == name) return kMakers[i](flags);
  return nullptr;
}

bool scheduler_exists(std::string_view name) {
  for (const std::string_view known : kNames)
    if (known == name) return true;
  return false;
}

SchedulerWords words_of_scheduler(std::string_view name) {
  std::size_t i = 0;
  while (kNames[i] != name) ++i;
  return kWords[i];
}

std::span<const std::string_view> scheduler_names() { return kNames; }

}  // namespace director
