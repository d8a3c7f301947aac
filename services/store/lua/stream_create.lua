-- Creates a stream.
-- KEYS: 1 stream:<id>  2 streams  3 profile:<name>  4 profile-streams:<name>  5 deleted-streams
-- ARGV: 1 id  2 json  3 key hash  4 profile  5 "1" when the profile is built in
-- Returns: {"OK"} | {"EXISTS"} | {"NO_PROFILE"}
if redis.call('EXISTS', KEYS[1]) == 1 then return {'EXISTS'} end
if ARGV[5] ~= '1' and redis.call('EXISTS', KEYS[3]) == 0 then return {'NO_PROFILE'} end
redis.call('HSET', KEYS[1], 'json', ARGV[2], 'key', ARGV[3], 'version', '1', 'profile', ARGV[4])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
redis.call('SADD', KEYS[4], ARGV[1])
redis.call('HDEL', KEYS[5], ARGV[1])
return {'OK'}
