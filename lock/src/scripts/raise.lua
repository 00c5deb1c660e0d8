-- Lets the fencing tokens go on from at least a number: a Redis that lost its memory counts from one again.
--
--   redis-cli --eval raise.lua zbl:x:fence , 4711
--
-- KEYS  1 the counter (see acquire.lua)
-- ARGV  1 the number, at most 2^53 - 1: above, Lua does not tell two neighbours apart
-- Returns what the counter stands at; the next token is greater

local fence, at_least = KEYS[1], tonumber(ARGV[1])

local at = tonumber(redis.call('GET', fence) or 0)
if at < at_least then
    redis.call('SET', fence, string.format('%.0f', at_least))
    return at_least
end
return at
