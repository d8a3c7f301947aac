-- Stores a run, and closes the tail to lower epochs. A run of another broadcast
-- empties the list; the last number stays.
-- KEYS: 1 tail:<stream>  2 tail-list:<stream>  3 tail-runs:<stream>
-- ARGV: 1 epoch  2 broadcast  3 run id  4 json  5 ttl s
-- Returns: {"OK"} | {"FENCED", epoch}
local cur = redis.call('HMGET', KEYS[1], 'fence', 'broadcast')
if cur[1] and tonumber(cur[1]) > tonumber(ARGV[1]) then return {'FENCED', cur[1]} end
if cur[2] ~= ARGV[2] then
  redis.call('DEL', KEYS[2], KEYS[3])
  redis.call('HSET', KEYS[1], 'broadcast', ARGV[2], 'ended', '0')
end
redis.call('HSET', KEYS[1], 'fence', ARGV[1])
redis.call('HSET', KEYS[3], ARGV[3], ARGV[4])
for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ARGV[5]) end
return {'OK'}
