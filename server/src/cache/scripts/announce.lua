-- Says that accounts may be about to get a version: until it, or a newer one, is known, nothing older is served or kept.
-- KEYS: the balances of the accounts. ARGV: life (ms), the announcer's token ('': it will not retract), and for each
-- account the version. A version older than the newest announced comes late and says nothing new.
for i, key in ipairs(KEYS) do
  local version = tonumber(ARGV[i + 2])
  -- A key that is not ours (another type, no version) must not keep us from telling of the accounts after it.
  local known = redis.pcall('HMGET', key, 'v', 'b')
  local newest = not known.err and tonumber(known[1] or '-1')
  if not newest or version > newest or (version == newest and not known[2]) then
    -- With the balance goes the era: whoever has read before this may not fill any more. And a Redis that is full refuses
    -- only what a script writes first: after this it takes the announcement.
    redis.call('DEL', key)
    redis.call('HSET', key, 'v', ARGV[i + 2], 'a', ARGV[2])
    redis.call('PEXPIRE', key, ARGV[1])
  end
end
