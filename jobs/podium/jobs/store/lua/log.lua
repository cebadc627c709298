-- Reads a page of a job's log: [archive, ledger, the newest event, the oldest row, the rows].
--
-- KEYS[1]  the job's hash
-- KEYS[2]  its stream of events
-- KEYS[3]  its log: ids are <sequence>-<lines before it>, and both only grow
-- ARGV[1]  the line to begin with: the rows from the one on that has it, or the newest where it is none of the kept ones
-- ARGV[2]  how many rows

local known = redis.call('HMGET', KEYS[1], 'archive', 'ledger')
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
local oldest = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 1)
if #oldest == 0 then
  return {known[1], known[2], newest, oldest, oldest}
end

local function parts(row)
  local sequence, before = string.match(row[1], '^(%d+)-(%d+)$')
  return tonumber(sequence), tonumber(before)
end

-- The row wanted is the last one that has no more lines before it than are to be left out.
local offset, low = tonumber(ARGV[1]), parts(oldest[1])
local high = parts(redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)[1])
while low < high do
  local middle = math.ceil((low + high) / 2)
  local row = redis.call('XREVRANGE', KEYS[3], string.format('%.0f', middle), '-', 'COUNT', 1)[1]
  local sequence, before = parts(row)
  if before <= offset then
    low = middle
  else
    high = sequence - 1
  end
end
local from = redis.call('XREVRANGE', KEYS[3], string.format('%.0f', low), '-', 'COUNT', 1)
from = #from > 0 and from[1][1] or '-'
return {known[1], known[2], newest, oldest, redis.call('XRANGE', KEYS[3], from, '+', 'COUNT', ARGV[2])}
