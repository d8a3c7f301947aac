-- Takes a lease that is free or one's own. Its token rises when the holder changes.
-- KEYS: 1 lease:<name>  2 lease-tokens
-- ARGV: 1 name  2 holder  3 ttl ms
-- Returns: {"OK", token} | {"HELD", holder}
local cur = redis.call('GET', KEYS[1])
if cur and cur ~= ARGV[2] then return {'HELD', cur} end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
if cur then return {'OK', redis.call('HGET', KEYS[2], ARGV[1]) or '0'} end
return {'OK', tostring(redis.call('HINCRBY', KEYS[2], ARGV[1], 1))}
