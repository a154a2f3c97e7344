// What a change would move, before it is made.
#include "director/preview.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "director/rules.h"

namespace director {
namespace {

class PreviewTest : public testing::Test {
 protected:
  explicit PreviewTest() : balancer_(Balancer::Options{}) {}

  void table(std::string_view scheduler) {
    const auto rules = parse_rules(fmt::format("-A -t 10.9.0.100:80 -s {}\n"
                                               "-a -t 10.9.0.100:80 -r 10.9.0.11 -m\n"
                                               "-a -t 10.9.0.100:80 -r 10.9.0.12 -m\n"
                                               "-a -t 10.9.0.100:80 -r 10.9.0.13 -m\n"
                                               "-a -t 10.9.0.100:80 -r 10.9.0.14 -m\n",
                                               scheduler));
    ASSERT_TRUE(rules);
    for (const Rule& rule : *rules) ASSERT_TRUE(balancer_.apply(rule.change, Instant{}));
  }
  Movement of(std::initializer_list<std::string_view> lines) {
    Preview preview{balancer_};
    Movement last;
    Lookups none;
    for (const std::string_view line : lines) {
      const auto command = parse_command("vsadm", split_rule(line).words, none);
      EXPECT_TRUE(command) << line;
      last = preview.apply(std::get<Change>(*command));
    }
    return last;
  }

  Balancer balancer_;
};

TEST_F(PreviewTest, MaglevMovesLittleMoreThanTheShareOfTheServerThatLeaves) {
  table("mh");
  const Movement movement = of({"-d -t 10.9.0.100:80 -r 10.9.0.12"});
  EXPECT_EQ(movement.of_slots, 4093U);
  EXPECT_GE(movement.slots, 4093U / 4);
  EXPECT_LE(movement.slots, 4093U / 4 + 4093U / 10);
}

TEST_F(PreviewTest, SourceHashingMovesMost) {
  table("sh");
  const Movement movement = of({"-d -t 10.9.0.100:80 -r 10.9.0.12"});
  EXPECT_EQ(movement.of_slots, 256U);
  EXPECT_GT(movement.slots, 128U);
}

TEST_F(PreviewTest, ChangesBuildOnEachOther) {
  table("mh");
  const Movement back = of({"-d -t 10.9.0.100:80 -r 10.9.0.14", "-a -t 10.9.0.100:80 -r 10.9.0.14 -m"});
  EXPECT_GE(back.slots, 4093U / 4) << "what moved away with the server comes back with it";
  EXPECT_EQ(of({"-e -t 10.9.0.100:80 -r 10.9.0.14 -m -w 0"}).slots, 0U) << "a quiesced server keeps its slots";
}

TEST_F(PreviewTest, AnotherSchedulerMovesAllAndOthersHaveNoSlots) {
  table("mh");
  EXPECT_EQ(of({"-E -t 10.9.0.100:80 -s sh"}).slots, 256U);
  EXPECT_EQ(of({"-E -t 10.9.0.100:80 -s rr"}).slots, 0U);
  EXPECT_EQ(of({"-A -t 10.9.0.101:80 -s mh"}).slots, 0U) << "nobody was anywhere";
}

}  // namespace
}  // namespace director
