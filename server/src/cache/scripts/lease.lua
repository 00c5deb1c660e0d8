-- Whether the one who asks may build, now and for a while; only to spare others the same work. KEYS: the lease.
-- ARGV: who asks, how long (ms).
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
