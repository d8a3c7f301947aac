-- Moves a placement to another device of its worker; the epoch stays. All of it
-- or nothing. Uses: ledger
-- KEYS: 1 placement:<stream>
-- ARGV: 1 stream  2 epoch  3 device  4 reserved json  5 limits json
--       6 "1" when the limits are not asked: the run is there already
--       7… of each reservation: resource, amount, limit, used or ""
-- Returns: {"OK"} | {"NOT_FOUND"} | {"FENCED", epoch} | {"CONFLICT", detail} | {"NO_ROOM", … as commit}
local id = ARGV[1]
local cur = redis.call('HMGET', KEYS[1], 'epoch', 'state', 'worker', 'reserved')
if not cur[1] then return {'NOT_FOUND'} end
if cur[1] ~= ARGV[2] then return {'FENCED', cur[1]} end
if cur[2] == 'ended' then return {'CONFLICT', 'the placement is ended'} end

local ms = math.floor(now_us() / 1000)
local want, set = wanted(7)
if ARGV[6] ~= '1' then
  for _, r in ipairs(want) do
    local no = refusal(cur[3], r.resource, id, r.amount, r.limit, r.used, ms)
    if no then return no end
  end
end
give_back(cur[3], cur[4], id, set, ms)
for _, r in ipairs(want) do hold(cur[3], r.resource, id, r.amount, ms) end
redis.call('HSET', KEYS[1], 'device', ARGV[3], 'reserved', ARGV[4], 'limits', ARGV[5], 'moved', string.format('%.0f', ms * 1000))
return {'OK'}
