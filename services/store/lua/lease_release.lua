-- Gives a lease back if the holder still has it.
-- KEYS: 1 lease:<name>
-- ARGV: 1 holder
-- Returns: {"OK"}
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return {'OK'}
