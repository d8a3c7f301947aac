-- Forgets a placement that has ended, and its stream's former origins. The
-- stream's epoch counter stays.
-- KEYS: 1 placement:<stream>  2 origins:<stream>
-- ARGV: 1 epoch
-- Returns: {"OK"} | {"CONFLICT", detail}
local cur = redis.call('HMGET', KEYS[1], 'epoch', 'state')
if not cur[1] then return {'OK'} end
if cur[1] ~= ARGV[1] then return {'CONFLICT', 'epoch is ' .. cur[1] .. ', not ' .. ARGV[1]} end
if cur[2] ~= 'ended' then return {'CONFLICT', 'the placement is ' .. cur[2]} end
redis.call('DEL', KEYS[1], KEYS[2])
return {'OK'}
