-- Takes a lock if it is free, or is held by the same owner already. All of it happens at once: nothing else runs in
-- Redis meanwhile. Asked again with the same hold, it answers the same: an answer that was lost can be asked for anew.
--
--   redis-cli --eval acquire.lua zbl:x:lock:42 zbl:x:wanted:42 zbl:x:fence , here/req-1/nonce hold-1 10000 here 20 100
--
-- KEYS  1 the lock, a hash: `owner`, `token`, and one field `hold:<id>` for each time its owner has taken it
--       2 who waits, a hash: process -> "<since>:<last seen>" in ms by the clock of Redis
--       3 the counter of fencing tokens, which must never expire or be evicted. Left out where this is one of several
--         nodes: each would count for itself, and each would have an order of its own in who is next, so that they might
--         never agree. Then nobody is turned away for another who waits.
-- ARGV  1 owner  2 hold  3 lease in ms  4 process that asks
--       5 turn in ms: a process that waits for longer than this is let in before others
--       6 stale in ms: who has not asked for longer than this no longer waits
-- Returns { 'taken', token, '' }    it is the owner's now; token 0 without a counter
--         { 'held', ms, owner }     somebody else's for so long (-1: for ever)
--         { 'next', ms, owner }     the same, and the process that asks is the next to get it
--         { 'turn', 0, process }    free, but that process has waited for longer

local lock, wanted, fence = KEYS[1], KEYS[2], KEYS[3]
local owner, hold, lease, process = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local turn, stale = tonumber(ARGV[5]), tonumber(ARGV[6])

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Notes that the asking process waits; it keeps the place it has.
local function wait()
    if not fence then
        return
    end
    local since = string.match(redis.call('HGET', wanted, process) or '', '^(%d+):')
    redis.call('HSET', wanted, process, string.format('%.0f:%.0f', tonumber(since) or now, now))
    redis.call('PEXPIRE', wanted, stale)
end

-- The process that has waited for longest, of those that have a turn coming. Whoever fell silent is forgotten, and so
-- is whoever was seen in the future: the clock has been set.
local function first()
    local oldest, who
    local all = redis.call('HGETALL', wanted)
    for i = 1, #all, 2 do
        local since, seen = string.match(all[i + 1], '^(%d+):(%d+)$')
        since, seen = tonumber(since), tonumber(seen)
        if not seen or seen > now or now - seen > stale then
            redis.call('HDEL', wanted, all[i])
        elseif now - since >= turn and (not oldest or since < oldest) then
            oldest, who = since, all[i]
        end
    end
    return who
end

local held_by = redis.call('HGET', lock, 'owner')
if held_by and held_by ~= owner then
    wait()
    local who = first()
    return { who == process and 'next' or 'held', redis.call('PTTL', lock), held_by }
end

local token = 0
if held_by then
    token = tonumber(redis.call('HGET', lock, 'token')) or 0
else
    local who = first()
    if who and who ~= process then
        wait()
        return { 'turn', 0, who }
    end
    -- Before anything is written: a counter that is no number ends the script here.
    if fence then
        token = redis.call('INCR', fence)
    end
    redis.call('HSET', lock, 'owner', owner, 'token', string.format('%.0f', token))
end
redis.call('HSET', lock, 'hold:' .. hold, 1)
-- Never shorter than it was: the outer hold may have been promised more.
if redis.call('PTTL', lock) < lease then
    redis.call('PEXPIRE', lock, lease)
end
redis.call('HDEL', wanted, process)
return { 'taken', token, '' }
