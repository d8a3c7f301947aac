-- Ends a placement and returns its reservations. Again, or for an epoch that a
-- later commit has replaced (and whose reservations that returned): nothing.
-- Uses: ledger
-- KEYS: 1 placement:<stream>
-- ARGV: 1 stream  2 epoch
-- Returns: {"OK", "1" when this call ended it} | {"CONFLICT", detail}
local cur = redis.call('HMGET', KEYS[1], 'epoch', 'state', 'worker', 'reserved')
if not cur[1] or tonumber(cur[1]) > tonumber(ARGV[2]) then return {'OK', '0'} end
if cur[1] ~= ARGV[2] then return {'CONFLICT', 'epoch is ' .. cur[1] .. ', not ' .. ARGV[2]} end
if cur[2] == 'ended' then return {'OK', '0'} end
end_placement(ARGV[1], cur[3], cur[4], now_us())
return {'OK', '1'}
