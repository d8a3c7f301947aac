-- Commits a placement: all of it or nothing.
--
-- The stream's placement must still be the one that the proposer read, and the
-- device's reservations with the new one added must stay within its limit. Then
-- the stream's former reservation (if any) is returned, the new one made, the
-- epoch raised, the placement written and the former origin kept in the history.
-- KEYS: 1 placement:<stream>  2 epochs  3 ledger:<worker>:<device>
--       4 ledger-devices:<worker>  5 worker-streams:<worker>  6 active  7 origins:<stream>
-- ARGV: 1 stream  2 expected epoch of the placement, 0 for none  3 worker  4 device
--       5 price px/s  6 limit px/s  7 json  8 source json
--       9 prefix of ledger:<worker>:<device>  10 prefix of worker-streams:<worker>
--       11 how long a former origin is kept, ms
-- Returns: {"OK", epoch, commit time µs} | {"CONFLICT", detail} | {"NO_ROOM", detail}
local id = ARGV[1]
local cur = redis.call('HMGET', KEYS[1], 'epoch', 'state', 'worker', 'device')
local epoch = cur[1] or '0'
if epoch ~= ARGV[2] then return {'CONFLICT', 'epoch is ' .. epoch .. ', not ' .. ARGV[2]} end

local sum, n = 0, 0
local ledger = redis.call('HGETALL', KEYS[3])
for i = 1, #ledger, 2 do
  if ledger[i] ~= id then sum, n = sum + tonumber(ledger[i + 1]), n + 1 end
end
if sum + tonumber(ARGV[5]) > tonumber(ARGV[6]) then
  return {'NO_ROOM', string.format('%s/%s: needs %s px/s; of %s px/s, %.0f are reserved by %d other streams', ARGV[3], ARGV[4], ARGV[5], ARGV[6], sum, n)}
end

local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2] -- µs; exact in a double until 2255
if cur[3] and cur[2] ~= 'ended' then
  redis.call('HDEL', ARGV[9] .. cur[3] .. ':' .. cur[4], id)
  redis.call('SREM', ARGV[10] .. cur[3], id)
end
-- History: epoch → "worker until", until in ms and 0 for the current one.
local keep = now / 1000 - tonumber(ARGV[11])
local old = redis.call('HGETALL', KEYS[7])
for i = 1, #old, 2 do
  local worker, untilMs = string.match(old[i + 1], '^(%S+) (%d+)$')
  if untilMs == '0' then
    redis.call('HSET', KEYS[7], old[i], string.format('%s %.0f', worker, now / 1000))
  elseif not worker or tonumber(untilMs) < keep then
    redis.call('HDEL', KEYS[7], old[i])
  end
end
local new = tostring(redis.call('HINCRBY', KEYS[2], id, 1))
redis.call('HSET', KEYS[7], new, ARGV[3] .. ' 0')
redis.call('HSET', KEYS[3], id, ARGV[5])
redis.call('SADD', KEYS[4], ARGV[4])
redis.call('SADD', KEYS[5], id)
redis.call('SADD', KEYS[6], id)
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'epoch', new, 'state', 'placed', 'worker', ARGV[3], 'device', ARGV[4],
  'price', ARGV[5], 'limit', ARGV[6], 'json', ARGV[7], 'source', ARGV[8], 'committed', string.format('%.0f', now))
return {'OK', new, string.format('%.0f', now)}
