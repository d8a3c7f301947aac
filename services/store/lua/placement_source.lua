-- Points a placement at another session.
-- KEYS: 1 placement:<stream>
-- ARGV: 1 epoch  2 source json
-- Returns: {"OK"} | {"NOT_FOUND"} | {"FENCED", epoch} | {"CONFLICT", detail}
local cur = redis.call('HMGET', KEYS[1], 'epoch', 'state')
if not cur[1] then return {'NOT_FOUND'} end
if cur[1] ~= ARGV[1] then return {'FENCED', cur[1]} end
if cur[2] ~= 'placed' then return {'CONFLICT', 'the placement is ' .. cur[2]} end
redis.call('HSET', KEYS[1], 'source', ARGV[2])
return {'OK'}
