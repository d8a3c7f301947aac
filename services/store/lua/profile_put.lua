-- Creates a profile (version 0) or replaces the version that was read.
-- KEYS: 1 profile:<name>  2 profiles
-- ARGV: 1 name  2 version, 0 for a new one  3 json
-- Returns: {"OK", version} | {"CONFLICT", detail}
local cur = redis.call('HGET', KEYS[1], 'version') or '0'
if cur ~= ARGV[2] then return {'CONFLICT', 'version is ' .. cur .. ', not ' .. ARGV[2]} end
redis.call('HSET', KEYS[1], 'json', ARGV[3])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
return {'OK', tostring(redis.call('HINCRBY', KEYS[1], 'version', 1))}
