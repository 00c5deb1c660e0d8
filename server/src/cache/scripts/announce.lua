-- Says that accounts may be about to get a version: until it, or a newer one, is known, nothing older is served or kept.
-- KEYS: the balances of the accounts. ARGV: life (ms), the announcer's token ('': it will not retract), and for each
-- account the version. A version older than the newest announced comes late and says nothing new.
for i, key in ipairs(KEYS) do
  local version = tonumber(ARGV[i + 2])
  local known = redis.call('HMGET', key, 'v', 'b')
  local newest = tonumber(known[1] or '-1')
  if version > newest or (version == newest and not known[2]) then
    -- With the balance goes the era: whoever has read before this may not fill any more.
    redis.call('DEL', key)
    redis.call('HSET', key, 'v', ARGV[i + 2], 'a', ARGV[2])
    redis.call('PEXPIRE', key, ARGV[1])
  end
end
