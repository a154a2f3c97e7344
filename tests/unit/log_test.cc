// Lines of the log.
#include "director/log.h"

#include <gtest/gtest.h>

namespace director {
namespace {

TEST(Log, IsLogfmtOrJsonInOneLine) {
  using namespace log;
  EXPECT_EQ(line(Format::logfmt, "T", Level::info, "interface is up", {{"device", "eth0"}, {"mtu", 1500}}),
            "time=T level=info msg=\"interface is up\" device=eth0 mtu=1500");
  EXPECT_EQ(line(Format::logfmt, "", Level::error, "x", {{"a", "two words"}, {"b", ""}, {"c", "q\"=\\\n"}}),
            "level=error msg=\"x\" a=\"two words\" b=\"\" c=\"q\\\"=\\\\\\n\"");
  EXPECT_EQ(line(Format::json, "T", Level::warning, "a\tb", {{"k", "v\""}}),
            "{\"time\":\"T\",\"level\":\"warning\",\"msg\":\"a\\tb\",\"k\":\"v\\\"\"}");
}

TEST(Log, IsValidUtf8WhateverTheValues) {
  using namespace log;
  EXPECT_EQ(line(Format::json, "", Level::info, "caf\xc3\xa9", {{"k", "latin \xe9\xff"}}),
            "{\"level\":\"info\",\"msg\":\"caf\xc3\xa9\",\"k\":\"latin \xef\xbf\xbd\xef\xbf\xbd\"}");
  EXPECT_EQ(line(Format::logfmt, "", Level::info, "x", {{"k", "\xe9"}, {"escape", "\x1b[31m"}}),
            "level=info msg=\"x\" k=\"\xef\xbf\xbd\" escape=\"\\u001b[31m\"")
      << "and no terminal is told what to do";
}

TEST(Log, LetsAFewThroughAndThenNoMore) {
  log::Limiter limiter;
  int through = 0;
  for (int i = 0; i < 1000; ++i) through += limiter.allow() ? 1 : 0;
  EXPECT_GE(through, 1);
  EXPECT_LE(through, 10);
}

}  // namespace
}  // namespace director
