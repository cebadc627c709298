-- Runs a list of commands, if nobody has written the job since it was read and its moves are legal: "done", or why not:
-- "overtaken", "fenced", "illegal" or "refused". MOVES, the table of podium.jobs.states, and lua/run.lua stand before
-- these lines.
--
-- KEYS[1]  the job's hash. `stamp` and `state` in it are written here, and of a new job by lua/enter.lua
-- ARGV[1]  the stamp that was read
-- ARGV[2]  the stamp from now on; the same where only something beside the job is written
-- ARGV[3]  the state and
-- ARGV[4]  the fence that were read: believed only where a version without `state` wrote last
-- ARGV[5]  the states that the job passes through, with spaces in between; empty where it stays
-- ARGV[6]  the fence that the writer shows; empty where it writes for no attempt
-- ARGV[7]  the fence from now on
-- ARGV[8]  how many of the commands that follow are guards, and
-- ARGV[9…] the commands: see lua/run.lua
--
-- Repeating it is safe: the first time leaves a new stamp, so that the repetition is overtaken.

local known = redis.call('HMGET', KEYS[1], 'stamp', 'state')
if known[1] ~= ARGV[1] then
  return 'overtaken'
end

-- A `state` of another stamp is older than the job: a version that knows none has written since.
local state, fence, stamp = string.match(known[2] or '', '^(%u+) (%d+) (%w+)$')
if stamp ~= known[1] then
  state, fence = ARGV[3], ARGV[4]
end
if ARGV[6] ~= '' and ARGV[6] ~= fence then
  return 'fenced'
end
if next(MOVES[state]) == nil or tonumber(ARGV[7]) < tonumber(fence) then
  return 'illegal'
end
for to in string.gmatch(ARGV[5], '%S+') do
  if not MOVES[state][to] then
    return 'illegal'
  end
  state = to
end

if not run(9, tonumber(ARGV[8])) then
  return 'refused'
end
-- Last, so that no command can have the last word on these.
redis.call('HSET', KEYS[1], 'stamp', ARGV[2], 'state', state .. ' ' .. ARGV[7] .. ' ' .. ARGV[2])
return 'done'
