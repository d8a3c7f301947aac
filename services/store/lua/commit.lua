-- Commits a placement: all of it or nothing. Uses: ledger
--
-- The stream's placement must still be the one that the proposer read, and so must
-- those that go for it; each resource must have room without them. Then they are
-- ended, the stream's former reservations (if any) are
-- returned, the new ones made, the epoch raised, the placement written and the
-- former origin kept in the history.
-- KEYS: 1 placement:<stream>  2 epochs  3 worker-streams:<worker>  4 active  5 origins:<stream>
-- ARGV: 1 stream  2 expected epoch of the placement, 0 for none  3 worker  4 device
--       5 json  6 source json  7 reserved json  8 limits json  9 prefix of worker-streams:<worker>
--       10 how long a former origin is kept, ms
--       11 json of the placements that go: [{"stream": …, "epoch": "…"}]
--       12… of each reservation: resource, amount, limit, used or ""
-- Returns: {"OK", epoch, commit time µs} | {"CONFLICT", detail}
--        | {"NO_ROOM", worker, resource, needed, limit, reserved, streams, used or "", young}
local id = ARGV[1]
local cur = redis.call('HMGET', KEYS[1], 'epoch', 'state', 'worker', 'reserved')
local epoch = cur[1] or '0'
if epoch ~= ARGV[2] then return {'CONFLICT', 'epoch is ' .. epoch .. ', not ' .. ARGV[2]} end

local now = now_us()
local ms = math.floor(now / 1000)
local want, set = wanted(12)
local victims, gone = cjson.decode(ARGV[11]), {}
for _, v in ipairs(victims) do
  local p = redis.call('HMGET', PREFIX .. 'placement:' .. v.stream, 'epoch', 'state', 'worker', 'reserved')
  if p[1] ~= v.epoch or p[2] ~= 'placed' then
    return {'CONFLICT', v.stream .. ' is not placed at epoch ' .. v.epoch .. ' any more'}
  end
  gone[v.stream], v.worker, v.reserved = true, p[3], p[4]
end
for _, r in ipairs(want) do
  local no = refusal(ARGV[3], r.resource, id, r.amount, r.limit, r.used, ms, gone)
  if no then return no end
end
for _, v in ipairs(victims) do end_placement(v.stream, v.worker, v.reserved, now) end

if cur[3] and cur[2] ~= 'ended' then
  give_back(cur[3], cur[4], id, cur[3] == ARGV[3] and set or {}, ms)
  redis.call('SREM', ARGV[9] .. cur[3], id)
end
for _, r in ipairs(want) do hold(ARGV[3], r.resource, id, r.amount, ms) end

-- History: epoch → "worker until", until in ms and 0 for the current one.
local keep = ms - tonumber(ARGV[10])
local old = redis.call('HGETALL', KEYS[5])
for i = 1, #old, 2 do
  local worker, untilMs = string.match(old[i + 1], '^(%S+) (%d+)$')
  if untilMs == '0' then
    redis.call('HSET', KEYS[5], old[i], string.format('%s %.0f', worker, ms))
  elseif not worker or tonumber(untilMs) < keep then
    redis.call('HDEL', KEYS[5], old[i])
  end
end
local new = tostring(redis.call('HINCRBY', KEYS[2], id, 1))
redis.call('HSET', KEYS[5], new, ARGV[3] .. ' 0')
redis.call('SADD', KEYS[3], id)
redis.call('SADD', KEYS[4], id)
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'epoch', new, 'state', 'placed', 'worker', ARGV[3], 'device', ARGV[4], 'json', ARGV[5],
  'source', ARGV[6], 'reserved', ARGV[7], 'limits', ARGV[8], 'committed', string.format('%.0f', now))
return {'OK', new, string.format('%.0f', now)}
