-- Makes the ledgers of a worker hold what its placements that have not ended have
-- reserved, no more and no less. Uses: ledger
--
-- A commit, a move and a release each are one script, and Redis writes a script's
-- changes to its log as one transaction: none is ever half done here. Whatever
-- differs is a leak and not work under way.
-- KEYS: 1 ledger-resources:<worker>  2 worker-streams:<worker>  3 active  4 ledger-workers
-- ARGV: 1 worker
-- Returns: {"OK", then of each change: resource, stream, amount held before (-1: unreadable), amount held now}
local worker, out, seen = ARGV[1], {'OK'}, {}
local ms = math.floor(now_us() / 1000)

-- What a stream's placement holds here, by resource.
local function placed(id)
  if not seen[id] then
    seen[id] = {}
    local p = redis.call('HMGET', PREFIX .. 'placement:' .. id, 'state', 'worker', 'reserved')
    if p[2] == worker and p[1] ~= 'ended' then
      for _, r in ipairs(cjson.decode(p[3])) do seen[id][r.resource] = r.amount end
    end
  end
  return seen[id]
end

local function set(resource, id, before, now)
  hold(worker, resource, id, now, ms)
  for _, v in ipairs({resource, id, string.format('%.0f', before), string.format('%.0f', now)}) do out[#out + 1] = v end
end

for _, resource in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local all = redis.call('HGETALL', ledger_key(worker, resource))
  local left = false
  for i = 1, #all, 2 do
    local want, held = placed(all[i])[resource] or 0, entry(all[i + 1]) or -1
    if want ~= held then set(resource, all[i], held, want) end
    left = left or want > 0
  end
  if not left then redis.call('SREM', KEYS[1], resource) end
end
for _, id in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  for resource, amount in pairs(placed(id)) do
    if redis.call('HEXISTS', ledger_key(worker, resource), id) == 0 then set(resource, id, 0, amount) end
  end
end
for id, held in pairs(seen) do
  if next(held) then
    redis.call('SADD', KEYS[2], id)
    redis.call('SADD', KEYS[3], id)
  else
    redis.call('SREM', KEYS[2], id)
  end
end
if redis.call('SCARD', KEYS[1]) == 0 then redis.call('SREM', KEYS[4], worker) end
return out
