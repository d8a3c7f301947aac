-- Replaces a stream's key hash.
-- KEYS: 1 stream:<id>
-- ARGV: 1 key hash
-- Returns: {"OK"} | {"NOT_FOUND"}
if redis.call('EXISTS', KEYS[1]) == 0 then return {'NOT_FOUND'} end
redis.call('HSET', KEYS[1], 'key', ARGV[1])
return {'OK'}
