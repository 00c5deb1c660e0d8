-- Looks a balance up. KEYS: the balance, the filter. ARGV: a new era, its life (ms), the filter's build ('': none), and
-- the id's two hashes.
-- Answers {'value', version, balance}; {'absent'}: no such account, as far as that filter can be believed; or {'none',
-- newest announced version, era, what the filter says}: go to the database; without an era, what is found is not kept.
local known = redis.call('HMGET', KEYS[1], 'v', 'b', 'e', 'g')
local version, balance, era = known[1], known[2], known[3]
if balance and balance ~= '' then return {'value', version, balance} end
local said = ''
if ARGV[3] ~= '' and (not version or version == '0') then
  local bits = filter_bits(KEYS[2])
  said = bits and 'maybe' or 'unknown'
  if bits then
    for i = 0, PROBES - 1 do
      if redis.call('GETBIT', KEYS[2], position(tonumber(ARGV[4]), tonumber(ARGV[5]), i, bits)) == 0 then
        return {'absent'}
      end
    end
    -- One that the filter mistakes for an account; somebody has looked, while this filter counted.
    if balance and known[4] == ARGV[3] then return {'absent'} end
  end
end
if balance then return {'none', '0', '', said} end
if not era then
  era = ARGV[1]
  redis.call('HSET', KEYS[1], 'e', era)
  if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
end
return {'none', version or '0', era, said}
