-- Stores a run's status unless a higher epoch has reported.
-- KEYS: 1 status:<stream>
-- ARGV: 1 epoch  2 json  3 ttl s
-- Returns: {"OK"} | {"FENCED", epoch}
local cur = redis.call('HGET', KEYS[1], 'epoch')
if cur and tonumber(cur) > tonumber(ARGV[1]) then return {'FENCED', cur} end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'json', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return {'OK'}
