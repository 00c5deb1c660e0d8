-- How many bits a filter has and how many ids it holds. KEYS: the filter. Answers {0, 0} where it cannot be believed.
local bits = filter_bits(KEYS[1])
if not bits then return {0, 0} end
return {bits, redis.call('BITFIELD', KEYS[1], 'GET', 'u32', 320)[1]}
