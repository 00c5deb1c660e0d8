-- Says that accounts got the versions that were announced, and what they hold.
-- KEYS: the balances of the accounts. ARGV: life (ms), and for each account version and balance.
for i, key in ipairs(KEYS) do
  local version, balance = ARGV[2 * i], ARGV[2 * i + 1]
  local newest = tonumber(redis.call('HGET', key, 'v') or '-1')
  if tonumber(version) == newest then
    redis.call('HSET', key, 'b', balance)
    redis.call('HDEL', key, 'a', 'e', 'g')
    redis.call('PEXPIRE', key, ARGV[1])
  elseif tonumber(version) > newest then
    -- Redis has forgotten the announcement, and with it perhaps a newer one: nothing is kept, and nothing older can be.
    redis.call('DEL', key)
    redis.call('HSET', key, 'v', version)
    redis.call('PEXPIRE', key, ARGV[1])
  end
end
