-- What the scripts below share: a Bloom filter in one string. Its first 64 bytes are the header: the run id of the Redis
-- that it was built in (40 hex digits), and how many ids it holds (u32). Another Redis, or the same one started again, has
-- another run id, and does not believe in it: it may have missed ids.
local HEADER_BITS, PROBES = 512, 7

-- The run id of this Redis, or nil where we are not allowed to ask.
local function run_id()
  local info = redis.pcall('INFO', 'server')
  return type(info) == 'string' and string.match(info, 'run_id:(%x+)') or nil
end

-- How many bits the filter has, or nil where it is not there or cannot be believed.
local function filter_bits(key)
  local own = run_id()
  if not own or redis.call('GETRANGE', key, 0, 39) ~= own then return nil end
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
  if new then redis.call('BITFIELD', key, 'OVERFLOW', 'SAT', 'INCRBY', 'u32', 320, 1) end
end

