-- Raises a field of a hash to at least a value.
-- KEYS: 1 the hash
-- ARGV: 1 field  2 value
-- Returns: {"OK", the value it has now}
local cur = redis.call('HGET', KEYS[1], ARGV[1])
if cur and tonumber(cur) >= tonumber(ARGV[2]) then return {'OK', cur} end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return {'OK', ARGV[2]}
