-- Ends a placement and returns its reservations. Again, or for an epoch that a
-- later commit has replaced (and whose reservations that returned): nothing.
-- Uses: ledger
-- KEYS: 1 placement:<stream>  2 active
-- ARGV: 1 stream  2 epoch  3 prefix of worker-streams:<worker>
-- Returns: {"OK", "1" when this call ended it} | {"CONFLICT", detail}
local cur = redis.call('HMGET', KEYS[1], 'epoch', 'state', 'worker', 'reserved')
if not cur[1] or tonumber(cur[1]) > tonumber(ARGV[2]) then return {'OK', '0'} end
if cur[1] ~= ARGV[2] then return {'CONFLICT', 'epoch is ' .. cur[1] .. ', not ' .. ARGV[2]} end
if cur[2] == 'ended' then return {'OK', '0'} end
local now = now_us()
redis.call('HSET', KEYS[1], 'state', 'ended', 'ended', string.format('%.0f', now))
give_back(cur[3], cur[4], ARGV[1], {}, math.floor(now / 1000))
redis.call('SREM', ARGV[3] .. cur[3], ARGV[1])
redis.call('SREM', KEYS[2], ARGV[1])
return {'OK', '1'}
