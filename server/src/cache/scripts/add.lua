-- Adds the ids of accounts that there are. KEYS: the filter. ARGV: two hashes for each id.
-- Answers 1, or 0 where there is no filter to be believed.
local bits = filter_bits(KEYS[1])
if not bits then return 0 end
for i = 1, #ARGV, 2 do add(KEYS[1], bits, tonumber(ARGV[i]), tonumber(ARGV[i + 1])) end
return 1
