-- Gives a hold back, and the lock with the last of its owner's holds. Somebody else's lock is left alone.
--
--   redis-cli --eval release.lua zbl:x:lock:42 , here/req-1/nonce hold-1
--
-- KEYS  1 the lock (see acquire.lua)
-- ARGV  1 owner  2 hold
-- Returns 1 if it was the owner's, 0 if it had run out, had been released, or is somebody else's

local lock = KEYS[1]
local owner, hold = ARGV[1], ARGV[2]

if redis.call('HGET', lock, 'owner') ~= owner or redis.call('HDEL', lock, 'hold:' .. hold) == 0 then
    return 0
end
-- `owner` and `token` are left.
if redis.call('HLEN', lock) <= 2 then
    redis.call('DEL', lock)
end
return 1
