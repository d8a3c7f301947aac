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
redis.call('HSET', KEYS[3], ARGV[1], redis.call('TIME')[1])
return {'OK'}
