-- Releases a publish claim if this connection, or its session, holds it.
-- KEYS: 1 claim:<stream>
-- ARGV: 1 node  2 conn
-- Returns: {"OK"}
local cur = redis.call('HMGET', KEYS[1], 'node', 'conn', 'session')
if cur[1] == ARGV[1] and (cur[2] == ARGV[2] or cur[3] == ARGV[2]) then redis.call('DEL', KEYS[1]) end
return {'OK'}
