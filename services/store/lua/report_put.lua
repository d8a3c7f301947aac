-- Stores a worker's report with the time of its arrival.
-- KEYS: 1 report:<worker>  2 workers
-- ARGV: 1 worker  2 json  3 ttl ms
-- Returns: {"OK"}
local t = redis.call('TIME')
redis.call('SET', KEYS[1], string.format('%.0f', t[1] * 1000000 + t[2]) .. ' ' .. ARGV[2], 'PX', ARGV[3])
redis.call('SADD', KEYS[2], ARGV[1])
return {'OK'}
