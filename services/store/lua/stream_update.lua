-- Updates a stream if its version is still the one that was read.
-- KEYS: 1 stream:<id>  2 profile:<new>  3 profile-streams:<new>
-- ARGV: 1 id  2 version  3 json  4 new profile  5 "1" when it is built in
--       6 prefix of profile-streams:<name>
-- Returns: {"OK", version} | {"NOT_FOUND"} | {"CONFLICT", detail} | {"NO_PROFILE"}
local cur = redis.call('HMGET', KEYS[1], 'version', 'profile')
if not cur[1] then return {'NOT_FOUND'} end
if cur[1] ~= ARGV[2] then return {'CONFLICT', 'version is ' .. cur[1] .. ', not ' .. ARGV[2]} end
if ARGV[5] ~= '1' and redis.call('EXISTS', KEYS[2]) == 0 then return {'NO_PROFILE'} end
redis.call('SREM', ARGV[6] .. cur[2], ARGV[1])
redis.call('SADD', KEYS[3], ARGV[1])
redis.call('HSET', KEYS[1], 'json', ARGV[3], 'profile', ARGV[4])
return {'OK', tostring(redis.call('HINCRBY', KEYS[1], 'version', 1))}
