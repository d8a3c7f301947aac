-- What the scripts that change ledgers share; a script that says "Uses: ledger"
-- in its head runs after this text. PREFIX, RAMP_HOLD (ms) and FEED_MAX come
-- from scripts.go.
--
-- Amounts and times are whole numbers below 2^53, exact in Lua's doubles; %.0f
-- writes them whole, where tostring would write 1e+15.

local function now_us()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end

local function ledger_key(worker, resource) return PREFIX .. 'ledger:' .. worker .. ':' .. resource end

-- An entry's amount and the ms when it was last raised.
local function entry(value)
  local amount, ms = string.match(value, '^(%d+) (%d+)$')
  return tonumber(amount), tonumber(ms)
end

-- Sets what a stream holds of a resource, 0 for nothing, and appends the change
-- to the feed.
local function hold(worker, resource, stream, amount, ms)
  local key = ledger_key(worker, resource)
  if amount > 0 then
    if redis.call('HSET', key, stream, string.format('%.0f %.0f', amount, ms)) == 1 then
      redis.call('SADD', PREFIX .. 'ledger-resources:' .. worker, resource)
      redis.call('SADD', PREFIX .. 'ledger-workers', worker)
    end
  elseif redis.call('HDEL', key, stream) == 0 then
    return
  end
  redis.call('XADD', PREFIX .. 'ledger-feed', 'MAXLEN', '~', FEED_MAX, '*', 'worker', worker, 'resource', resource,
    'stream', stream, 'amount', string.format('%.0f', amount), 'ms', string.format('%.0f', ms))
end

-- Whether a stream may hold amount of a resource: nil when it may, else the
-- answer that says why not. What those in the set gone hold is not counted; what the
-- others hold is the greater of what they have reserved, and what is measured (used, nil when unknown) with what they
-- reserved too recently for the measurement to show it.
local function refusal(worker, resource, stream, amount, limit, used, ms, gone)
  local reserved, young, n = 0, 0, 0
  local all = redis.call('HGETALL', ledger_key(worker, resource))
  for i = 1, #all, 2 do
    if all[i] ~= stream and not (gone and gone[all[i]]) then
      local a, at = entry(all[i + 1])
      if not a then return {'UNREADABLE', worker, resource, all[i]} end
      reserved, n = reserved + a, n + 1
      if ms - at < RAMP_HOLD then young = young + a end
    end
  end
  if math.max(reserved, used and used + young or 0) + amount <= limit then return nil end
  local function int(v) return string.format('%.0f', v) end
  return {'NO_ROOM', worker, resource, int(amount), int(limit), int(reserved), int(n), used and int(used) or '', int(young)}
end

-- Reads resource, amount, limit and used ('' when unknown) of each reservation
-- from ARGV, from index first on.
local function wanted(first)
  local list, set = {}, {}
  for i = first, #ARGV, 4 do
    list[#list + 1] = {resource = ARGV[i], amount = tonumber(ARGV[i + 1]), limit = tonumber(ARGV[i + 2]), used = tonumber(ARGV[i + 3])}
    set[ARGV[i]] = true
  end
  return list, set
end

-- Returns what a stream holds, but for the resources in keep.
local function give_back(worker, reserved, stream, keep, ms)
  for _, r in ipairs(cjson.decode(reserved)) do
    if not keep[r.resource] then hold(worker, r.resource, stream, 0, ms) end
  end
end

-- Ends a placement and returns its reservations.
local function end_placement(stream, worker, reserved, now)
  redis.call('HSET', PREFIX .. 'placement:' .. stream, 'state', 'ended', 'ended', string.format('%.0f', now))
  give_back(worker, reserved, stream, {}, math.floor(now / 1000))
  redis.call('SREM', PREFIX .. 'worker-streams:' .. worker, stream)
  redis.call('SREM', PREFIX .. 'active', stream)
end
