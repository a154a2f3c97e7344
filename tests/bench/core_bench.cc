// core_bench: what the core costs, without devices and without input and output. tests/bench/run builds and runs it.
//
//   core_bench [--flows=N] [--rounds=N] [Google Benchmark's options]
//
// --flows: the largest table that is measured (default 1000000; ten million need 10 GB and some minutes).
// --rounds: so many rounds of 16 batches of 64 packets for each packet bench, instead of as many as the time wants.
#include <charconv>
#include <cstring>
#include <exception>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "suites.h"

int main(int argc, char** argv) {
  using namespace director::bench;
  Options options;
  std::vector<char*> others;
  for (char* word : std::span{argv, static_cast<std::size_t>(argc)}) {
    const std::string_view text = word;
    const auto number = [&](std::string_view name, auto& value) {
      if (!text.starts_with(name)) return false;
      const char* const end = text.data() + text.size();
      return std::from_chars(text.data() + name.size(), end, value).ptr == end;
    };
    if (!number("--flows=", options.most_flows) && !number("--rounds=", options.rounds)) others.push_back(word);
  }
  int count = static_cast<int>(others.size());
  benchmark::Initialize(&count, others.data());
  if (benchmark::ReportUnrecognizedArguments(count, others.data())) return 2;
  try {
    add_piece_benches(options);
    add_packet_benches(options);
    add_table_benches(options);
    add_config_benches(options);
    benchmark::RunSpecifiedBenchmarks();
  } catch (const std::exception& e) {
    fmt::print(stderr, "core_bench: {}\n", e.what());
    return 1;
  }
  return 0;
}
