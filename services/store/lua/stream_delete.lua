-- Deletes a stream, and remembers that it was: what is missing without that was
-- lost. Its placement is the controller's to end; its epoch and number bound stay,
-- so that a stream of the same id goes on above them.
-- KEYS: 1 stream:<id>  2 streams  3 deleted-streams
-- ARGV: 1 id  2 prefix of profile-streams:<name>  3 "1" to remember it also of one that is not found
-- Returns: {"OK"} | {"NOT_FOUND"}
local profile = redis.call('HGET', KEYS[1], 'profile')
if profile then
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('SREM', ARGV[2] .. profile, ARGV[1])
elseif ARGV[3] ~= '1' then
  return {'NOT_FOUND'}
end
local now = redis.call('TIME')[1]
-- Of twenty that are remembered, whichever, those of more than a week ago are
-- forgotten: few such stay, and a deletion costs the same however many there are.
local some = redis.call('HRANDFIELD', KEYS[3], 20, 'WITHVALUES')
for i = 1, #some, 2 do
  if now - (tonumber(some[i + 1]) or 0) > 7 * 86400 then redis.call('HDEL', KEYS[3], some[i]) end
end
redis.call('HSET', KEYS[3], ARGV[1], now)
return {'OK'}
