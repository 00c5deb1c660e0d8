-- Says that accounts got the versions that were announced, and what they hold.
-- KEYS: the balances of the accounts. ARGV: life (ms), and for each account version and balance.
for i, key in ipairs(KEYS) do
  local version, balance = ARGV[2 * i], ARGV[2 * i + 1]
  local known = redis.pcall('HGET', key, 'v')
  local newest = type(known) ~= 'table' and tonumber(known or '-1')
  if tonumber(version) == newest then
    -- A full Redis may refuse it. Then the announcement stands, and readers ask the database.
    local kept = redis.pcall('HSET', key, 'b', balance)
    if type(kept) ~= 'table' then
      redis.call('HDEL', key, 'a', 'e', 'g')
      redis.call('PEXPIRE', key, ARGV[1])
    end
  elseif not newest or tonumber(version) > newest then
    -- Redis has forgotten the announcement, and with it perhaps a newer one: nothing is kept, and nothing older can be. Full,
    -- it refuses only what a script writes first, and takes the announcement after this.
    redis.call('DEL', key)
    redis.call('HSET', key, 'v', version)
    redis.call('PEXPIRE', key, ARGV[1])
  end
end
