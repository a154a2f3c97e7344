// Recipes: made when the first connection needs one, forgotten with the last.
#include "director/core/recipe.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cassert>

namespace director {

Recipe::Recipe(const RecipeKey& key) : RecipeKey(key) {
  switch (method) {
    case Method::masq:
      request = Nat{NatEnd::target, virtual_, real, zero_checksum};
      reply = Nat{NatEnd::source, real, virtual_, zero_checksum};
      break;
    case Method::tunnel: request = Tunnel{real.address}; break;
    case Method::direct: request = Direct{}; break;
  }
}

std::size_t RecipeTable::KeyHash::operator()(const RecipeKey& key) const {
  const FlowKey ends{key.virtual_, key.real, key.protocol};  // hashed as bytes
  return XXH3_64bits_withSeed(&ends, sizeof ends, key.server.index * 4U + static_cast<unsigned>(key.method));
}

RecipeId RecipeTable::take(const RecipeKey& key) {
  const auto [known, is_new] = index_.try_emplace(key);
  RecipeId& id = known->second;
  if (is_new) {
    if (free_.empty()) {
      const auto first = static_cast<std::uint32_t>(chunks_.size() * kChunk);
      chunks_.push_back(std::make_unique<Row[]>(kChunk));
      for (std::uint32_t i = kChunk; i > 0; --i) free_.push_back({first + i - 1});
    }
    id = free_.back();
    free_.pop_back();
    row(id) = {Recipe{key}, 0};
  }
  ++row(id).users;
  return id;
}

void RecipeTable::release(RecipeId id) {
  assert(row(id).users > 0);
  if (--row(id).users != 0) return;
  index_.erase(row(id).recipe);
  free_.push_back(id);
}

}  // namespace director
