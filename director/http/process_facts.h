// What the kernel knows of this process, for the process_* metrics.
#pragma once

#include "director/http/metrics.h"

namespace director {

/// All but `started`. What can't be read is 0.
[[nodiscard]] MetricsSnapshot::Process read_process_facts();

}  // namespace director
