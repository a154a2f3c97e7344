// Options of the daemon: its command line and the INI file of --config, as one Config.
//
// Checks everything that can be checked without privilege and without opening a device; decides nothing.
// vsadm's and replay's grammars are their own (rules.h, replay).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "director/core/balancer.h"
#include "director/io/device.h"
#include "director/log.h"

namespace director {

enum class Guard : std::uint8_t { off, on };

/// What carries big established flows past the director (control/kernel_path.h).
enum class Accelerate : std::uint8_t { off, tc };

struct Config {
  std::vector<DeviceSpec> devices;
  std::string rules;    ///< empty: begin without services
  std::string control;  ///< the command socket
  Guard guard = Guard::on;
  Accelerate accelerate = Accelerate::tc;
  Policy policy = Policy::improved;
  std::vector<SetTunable> tunables;
  std::string pcap;  ///< empty: record nothing
  std::string proc_dir;  ///< empty: no mirror of /proc/net/ip_vs*
  std::optional<Endpoint> http;  ///< nothing: no status page, no metrics
  log::Level log_level = log::Level::info;
  log::Format log_format = log::Format::logfmt;
};

/// What the command line asks for.
enum class Task : std::uint8_t { run, check, help, version };

/// To people or to programs.
enum class Told : std::uint8_t { as_text, as_json };

struct Options {
  Task task = Task::run;
  Told told = Told::as_text;  ///< what --check finds
  Config config;
};

/// The words after the program's name. Throws StartupError: usage for the command line, configuration for the
/// --config file.
[[nodiscard]] Options parse_options(const std::vector<std::string>& words);
/// What --help prints.
[[nodiscard]] std::string usage();

}  // namespace director
