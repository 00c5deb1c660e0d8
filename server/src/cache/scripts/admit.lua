-- Adds an id whose account is about to be opened, and forgets that there was none. KEYS: the filter, the balance.
-- ARGV: the id's two hashes, and the life (ms) of what is said of the balance.
-- Answers 1, or 0 where there is no filter to be believed.
local bits = filter_bits(KEYS[1])
if not bits then return 0 end
add(KEYS[1], bits, tonumber(ARGV[1]), tonumber(ARGV[2]))
if tonumber(redis.call('HGET', KEYS[2], 'v') or '0') < 1 then
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[2], 'v', '1')
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
end
return 1
