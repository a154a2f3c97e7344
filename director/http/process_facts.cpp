// From getrusage, getrlimit and /proc/self.
#include "director/http/process_facts.h"

#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>

namespace director {

MetricsSnapshot::Process read_process_facts() {
  MetricsSnapshot::Process facts;
  rusage used{};
  if (getrusage(RUSAGE_SELF, &used) == 0) {
    const auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6; };
    facts.cpu_seconds = seconds(used.ru_utime) + seconds(used.ru_stime);
  }
  std::uint64_t pages = 0;
  std::uint64_t resident = 0;
  if (std::ifstream("/proc/self/statm") >> pages >> resident) {
    const auto page = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
    facts.virtual_bytes = pages * page;
    facts.resident_bytes = resident * page;
  }
  std::error_code none;
  const std::filesystem::directory_iterator descriptors("/proc/self/fd", none);
  if (!none) facts.open_descriptors = static_cast<std::uint64_t>(std::distance(begin(descriptors), end(descriptors)));
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) facts.most_descriptors = limit.rlim_cur;
  return facts;
}

}  // namespace director
