-- Lets a lease begin anew, if it still is the owner's.
--
--   redis-cli --eval extend.lua zbl:x:lock:42 , here/req-1/nonce hold-1 10000
--
-- KEYS  1 the lock (see acquire.lua)
-- ARGV  1 owner  2 hold  3 lease in ms
-- Returns 1 if it was, 0 if it ran out, was released, or is somebody else's

local lock = KEYS[1]
local owner, hold, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])

if redis.call('HGET', lock, 'owner') ~= owner or redis.call('HEXISTS', lock, 'hold:' .. hold) == 0 then
    return 0
end
if redis.call('PTTL', lock) < lease then
    redis.call('PEXPIRE', lock, lease)
end
return 1
