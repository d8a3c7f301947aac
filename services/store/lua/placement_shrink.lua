-- Sets what a placement has reserved. Less always fits; more only within the
-- device's limit as the commit knew it.
-- KEYS: 1 placement:<stream>
-- ARGV: 1 stream  2 epoch  3 price px/s  4 prefix of ledger:<worker>:<device>
-- Returns: {"OK"} | {"NOT_FOUND"} | {"FENCED", epoch} | {"CONFLICT", detail} | {"NO_ROOM", detail}
local cur = redis.call('HMGET', KEYS[1], 'epoch', 'state', 'worker', 'device', 'price', 'limit')
if not cur[1] then return {'NOT_FOUND'} end
if cur[1] ~= ARGV[2] then return {'FENCED', cur[1]} end
if cur[2] == 'ended' then return {'CONFLICT', 'the placement is ended'} end
local key = ARGV[4] .. cur[3] .. ':' .. cur[4]
if tonumber(ARGV[3]) > tonumber(cur[5]) then
  local sum = 0
  local ledger = redis.call('HGETALL', key)
  for i = 1, #ledger, 2 do
    if ledger[i] ~= ARGV[1] then sum = sum + tonumber(ledger[i + 1]) end
  end
  if sum + tonumber(ARGV[3]) > tonumber(cur[6]) then
    return {'NO_ROOM', string.format('%s/%s: needs %s px/s; of %s px/s, %.0f are reserved by other streams', cur[3], cur[4], ARGV[3], cur[6], sum)}
  end
end
redis.call('HSET', KEYS[1], 'price', ARGV[3])
redis.call('HSET', key, ARGV[1], ARGV[3])
return {'OK'}
