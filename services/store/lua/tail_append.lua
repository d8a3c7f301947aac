-- Appends a segment to the tail.
--   * A lower epoch than one that has written, or been committed, is fenced.
--   * The number must be above the last. The last one again, from the same run,
--     is the repetition of a call whose answer was lost.
--   * A number that leaves a hole empties the list: what is listed is contiguous.
--   * A segment of another broadcast empties the list; the number goes on.
-- Then what lies before the window leaves, with the runs that nothing refers to.
-- KEYS: 1 tail:<stream>  2 tail-list:<stream>  3 tail-runs:<stream>
-- ARGV: 1 epoch  2 broadcast  3 number  4 local number  5 run id  6 segment json
--       7 end of the segment, media ns  8 window, ns  9 ttl s
--       10 lowest number to accept when the last one is not known
-- Returns: {"OK"} | {"FENCED", epoch} | {"CONFLICT", detail}
local cur = redis.call('HMGET', KEYS[1], 'fence', 'broadcast', 'last', 'lastof', 'ended')
if cur[1] and tonumber(cur[1]) > tonumber(ARGV[1]) then return {'FENCED', cur[1]} end
local number, of = tonumber(ARGV[3]), ARGV[5] .. ' ' .. ARGV[4]
if cur[3] then
  local last = tonumber(cur[3])
  if number == last and cur[4] == of and cur[2] == ARGV[2] then return {'OK'} end
  if number <= last then return {'CONFLICT', 'the last number is ' .. cur[3] .. '; ' .. ARGV[3] .. ' is not above it'} end
elseif number < tonumber(ARGV[10]) then
  return {'CONFLICT', 'the last number is at least ' .. ARGV[10] .. ' - 1; ' .. ARGV[3] .. ' is not above it'}
end
if cur[2] == ARGV[2] and cur[5] == '1' then return {'CONFLICT', 'the broadcast has ended'} end
if cur[2] ~= ARGV[2] then
  redis.call('DEL', KEYS[2], KEYS[3])
elseif cur[3] and number ~= tonumber(cur[3]) + 1 then
  redis.call('DEL', KEYS[2])
end
redis.call('HSET', KEYS[1], 'fence', ARGV[1], 'broadcast', ARGV[2], 'last', ARGV[3], 'lastof', of, 'ended', '0')
redis.call('RPUSH', KEYS[2], ARGV[6])
local head, run
while redis.call('LLEN', KEYS[2]) > 1 do
  head = cjson.decode(redis.call('LINDEX', KEYS[2], 0))
  if tonumber(ARGV[7]) - (head.start + head.dur) < tonumber(ARGV[8]) then break end
  local gone = head.run
  redis.call('LPOP', KEYS[2])
  head = cjson.decode(redis.call('LINDEX', KEYS[2], 0))
  if head.run.epoch ~= gone.epoch or head.run.run ~= gone.run then
    redis.call('HDEL', KEYS[3], string.format('e%.0fr%.0f', gone.epoch, gone.run))
  end
end
for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ARGV[9]) end
return {'OK'}
