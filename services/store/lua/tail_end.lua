-- Marks a tail as ended, and shortens its life.
-- KEYS: 1 tail:<stream>  2 tail-list:<stream>  3 tail-runs:<stream>
-- ARGV: 1 epoch  2 ttl s
-- Returns: {"OK"} | {"FENCED", epoch}
local fence = redis.call('HGET', KEYS[1], 'fence')
if fence and tonumber(fence) > tonumber(ARGV[1]) then return {'FENCED', fence} end
if redis.call('HEXISTS', KEYS[1], 'broadcast') == 1 then
  redis.call('HSET', KEYS[1], 'ended', '1')
  for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ARGV[2]) end
end
return {'OK'}
