-- What the scripts below share: a Bloom filter in one string. Its first 128 bytes are the header: the name of the Redis that
-- it was built in (80 hex digits), and how many ids it holds (u32). Another Redis, or the same one started or promoted again,
-- has another name, and does not believe in it: it may have missed ids.
local HEADER_BITS, PROBES, NAME_DIGITS, COUNT_BIT = 1024, 7, 80, 640

-- The name of this Redis as a master: its run id (new at each start) and its replication id (new at each promotion). Nil
-- where it is a replica, or we are not allowed to ask. One section at a time: Redis 6.2 takes no more.
local function own_name()
  local server, replication = redis.pcall('INFO', 'server'), redis.pcall('INFO', 'replication')
  if type(server) ~= 'string' or type(replication) ~= 'string' then return nil end
  local run, promotion = string.match(server, 'run_id:(%x+)'), string.match(replication, 'master_replid:(%x+)')
  local name = run and promotion and string.match(replication, 'role:(%a+)') == 'master' and run .. promotion
  return name and #name == NAME_DIGITS and name or nil
end

-- How many bits the filter has, or nil where it is not there or cannot be believed.
local function filter_bits(key)
  local own = own_name()
  if not own or redis.call('GETRANGE', key, 0, NAME_DIGITS - 1) ~= own then return nil end
  return redis.call('STRLEN', key) * 8 - HEADER_BITS
end

-- The i-th of an id's bits, by its two hashes (32 bits each, so that a double computes exactly).
local function position(first, second, i, bits)
  return HEADER_BITS + (first + i * second) % bits
end

-- Adds an id; whether it can have been there before cannot be told, only that it was not.
local function add(key, bits, first, second)
  local new = false
  for i = 0, PROBES - 1 do
    if redis.call('SETBIT', key, position(first, second, i, bits), 1) == 0 then new = true end
  end
  if new then redis.call('BITFIELD', key, 'OVERFLOW', 'SAT', 'INCRBY', 'u32', COUNT_BIT, 1) end
end

