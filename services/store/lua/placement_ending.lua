-- Moves a placement from placed to ending; one that is further already stays.
-- KEYS: 1 placement:<stream>
-- ARGV: 1 epoch
-- Returns: {"OK"} | {"NOT_FOUND"} | {"FENCED", epoch}
local cur = redis.call('HMGET', KEYS[1], 'epoch', 'state')
if not cur[1] then return {'NOT_FOUND'} end
if cur[1] ~= ARGV[1] then return {'FENCED', cur[1]} end
if cur[2] == 'placed' then redis.call('HSET', KEYS[1], 'state', 'ending') end
return {'OK'}
