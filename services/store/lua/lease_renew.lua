-- Renews a lease that the holder still has.
-- KEYS: 1 lease:<name>
-- ARGV: 1 holder  2 ttl ms
-- Returns: {"OK"} | {"HELD", holder or ""}
local cur = redis.call('GET', KEYS[1])
if cur ~= ARGV[1] then return {'HELD', cur or ''} end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {'OK'}
