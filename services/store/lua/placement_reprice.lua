-- Changes the amounts that a placement has reserved. Less always fits; more only
-- within the limits that the commit (or the last move) knew. Uses: ledger
--
-- A resource that is left out is returned. What was measured at the commit is
-- not asked again: it is old, and may hold the stream's own use.
-- KEYS: 1 placement:<stream>
-- ARGV: 1 stream  2 epoch  3 reserved json  4… of each reservation: resource, amount, "", ""
-- Returns: {"OK"} | {"NOT_FOUND"} | {"FENCED", epoch} | {"CONFLICT", detail} | {"NO_ROOM", … as commit}
local id = ARGV[1]
local cur = redis.call('HMGET', KEYS[1], 'epoch', 'state', 'worker', 'device', 'reserved', 'limits')
if not cur[1] then return {'NOT_FOUND'} end
if cur[1] ~= ARGV[2] then return {'FENCED', cur[1]} end
if cur[2] == 'ended' then return {'CONFLICT', 'the placement is ended'} end

local ms = math.floor(now_us() / 1000)
local worker, limits, former = cur[3], cjson.decode(cur[6]), {}
for _, r in ipairs(cjson.decode(cur[5])) do former[r.resource] = r.amount end
local want, set = wanted(4)
if want[1].resource ~= cur[4] then return {'CONFLICT', 'its device is ' .. cur[4] .. ', not ' .. want[1].resource} end
for _, r in ipairs(want) do
  if not former[r.resource] then return {'CONFLICT', r.resource .. ' was not reserved'} end
  if r.amount > former[r.resource] then
    local no = refusal(worker, r.resource, id, r.amount, limits[r.resource], nil, ms)
    if no then return no end
  end
end

give_back(worker, cur[5], id, set, ms)
for _, r in ipairs(want) do
  local value = redis.call('HGET', ledger_key(worker, r.resource), id)
  local amount, at = entry(value or '0 0')
  if r.amount > amount then at = ms end
  if r.amount ~= amount then hold(worker, r.resource, id, r.amount, at) end
end
redis.call('HSET', KEYS[1], 'reserved', ARGV[3])
return {'OK'}
