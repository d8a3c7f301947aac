-- Takes a stream's publish claim, or refreshes one's own.
-- KEYS: 1 claim:<stream>
-- ARGV: 1 node  2 conn  3 protocol  4 remote  5 "1" to take it over  6 ttl ms
-- Returns: {"OK"} | {"BUSY", who holds it}
local cur = redis.call('HMGET', KEYS[1], 'node', 'conn', 'protocol', 'remote')
if cur[1] and (cur[1] ~= ARGV[1] or cur[2] ~= ARGV[2]) then
  if ARGV[5] ~= '1' then return {'BUSY', cur[3] .. ' from ' .. cur[4] .. ' at node ' .. cur[1]} end
  redis.call('DEL', KEYS[1]) -- the session is the old holder's
end
redis.call('HSET', KEYS[1], 'node', ARGV[1], 'conn', ARGV[2], 'protocol', ARGV[3], 'remote', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return {'OK'}
