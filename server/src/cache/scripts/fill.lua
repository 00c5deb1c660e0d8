-- Keeps what a reader found in the database, where nothing was announced since it looked here and it is not older than
-- what was announced before. KEYS: the balance. ARGV: the era found when looking, version, balance, life (ms), and for the
-- absence of an account (version 0, balance '') the filter by which it may be believed.
local known = redis.call('HMGET', KEYS[1], 'e', 'v')
if known[1] ~= ARGV[1] or tonumber(ARGV[2]) < tonumber(known[2] or '0') then
  return 0
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'v', ARGV[2], 'b', ARGV[3], 'g', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
