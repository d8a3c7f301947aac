-- Returns where the feed stands. An empty feed gets an entry that changes
-- nothing: a reader knows by the presence of the entry it read last that it has
-- missed none since.
-- KEYS: 1 ledger-feed
-- Returns: {"OK", id of the last entry}
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if last then return {'OK', last[1]} end
return {'OK', redis.call('XADD', KEYS[1], '*', 'worker', '', 'resource', '', 'stream', '', 'amount', '0', 'ms', '0')}
