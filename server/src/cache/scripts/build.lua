-- Makes an empty filter, or an empty one larger. KEYS: the filter. ARGV: its size (bytes, without the header), its life (ms)
-- should its builder not come to an end. Answers 1, or 0 where this Redis is a replica, or does not tell its name.
local own = own_name()
if not own then return 0 end
redis.call('SETRANGE', KEYS[1], HEADER_BITS / 8 + ARGV[1] - 1, '\0')
redis.call('SETRANGE', KEYS[1], 0, own)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
