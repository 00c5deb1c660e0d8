-- Says that what was announced did not happen. Only the announcer may, and only while nobody announced after it.
-- KEYS: the balances of the accounts. ARGV: the announcer's token.
for _, key in ipairs(KEYS) do
  if redis.call('HGET', key, 'a') == ARGV[1] then
    redis.call('DEL', key)
  end
end
