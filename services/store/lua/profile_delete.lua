-- Deletes a profile that no stream refers to.
-- KEYS: 1 profile:<name>  2 profiles  3 profile-streams:<name>
-- ARGV: 1 name
-- Returns: {"OK"} | {"NOT_FOUND"} | {"IN_USE", number of streams}
if redis.call('EXISTS', KEYS[1]) == 0 then return {'NOT_FOUND'} end
local n = redis.call('SCARD', KEYS[3])
if n > 0 then return {'IN_USE', n .. ' streams'} end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return {'OK'}
