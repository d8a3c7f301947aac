-- Reads all ledgers of a worker at one moment, and where the feed stood then.
-- Uses: ledger
-- KEYS: 1 ledger-resources:<worker>  2 ledger-feed
-- ARGV: 1 worker
-- Returns: {"OK", id of the feed's last entry or "", then of each entry: resource, stream, "<amount> <ms>"}
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
local out = {'OK', last and last[1] or ''}
for _, resource in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local all = redis.call('HGETALL', ledger_key(ARGV[1], resource))
  for i = 1, #all, 2 do
    out[#out + 1], out[#out + 2], out[#out + 3] = resource, all[i], all[i + 1]
  end
end
return out
