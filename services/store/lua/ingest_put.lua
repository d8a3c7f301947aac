-- Stores an ingest node's report and brings the publish claims in line with it:
-- those of its publishers are refreshed (and made again when Redis lost them),
-- those of publishers that have left since its last report are released. A claim
-- belongs to a session from the first report that shows it, because mediamtx may
-- name a connection and its session differently.
-- KEYS: 1 ingest:<node>  2 ingest-nodes  3 ingest-paths:<node>
-- ARGV: 1 node  2 json  3 report ttl ms  4 claim ttl ms  5 prefix of claim:<stream>
--       6… stream, session, protocol, remote of each ready path
-- Returns: {"OK"}
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('SADD', KEYS[2], ARGV[1])
local before = redis.call('HGETALL', KEYS[3])
redis.call('DEL', KEYS[3])
local now = {}
for i = 6, #ARGV, 4 do
  local id, session = ARGV[i], ARGV[i + 1]
  now[id] = true
  redis.call('HSET', KEYS[3], id, session)
  local key = ARGV[5] .. id
  local cur = redis.call('HMGET', key, 'node', 'session')
  if not cur[1] then
    redis.call('HSET', key, 'node', ARGV[1], 'conn', session, 'protocol', ARGV[i + 2], 'remote', ARGV[i + 3], 'session', session)
    redis.call('PEXPIRE', key, ARGV[4])
  elseif cur[1] == ARGV[1] then
    if not cur[2] then redis.call('HSET', key, 'session', session) end
    redis.call('PEXPIRE', key, ARGV[4])
  end
end
if #ARGV > 5 then redis.call('PEXPIRE', KEYS[3], ARGV[4]) end
for i = 1, #before, 2 do
  if not now[before[i]] then
    local key = ARGV[5] .. before[i]
    local cur = redis.call('HMGET', key, 'node', 'session')
    if cur[1] == ARGV[1] and cur[2] == before[i + 1] then redis.call('DEL', key) end
  end
end
return {'OK'}
