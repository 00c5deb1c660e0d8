-- Makes an empty filter. KEYS: the filter. ARGV: its size (bytes, without the header), its life (ms) should its builder not
-- come to an end. Answers 1, or 0 where this Redis does not tell its run id.
local own = run_id()
if not own then return 0 end
redis.call('SETRANGE', KEYS[1], HEADER_BITS / 8 + ARGV[1] - 1, '\0')
redis.call('SETRANGE', KEYS[1], 0, own)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
