-- Runs a list of commands if nobody has written the job since it was read: "done", "overtaken" or "refused".
--
-- KEYS[1]  the job's hash
-- ARGV[1]  the stamp that was read; empty for a job that must not exist yet
-- ARGV[2]  how many of the commands that follow are guards: they run first, and must all return 0
-- ARGV[3…] the commands, each as the number of its words and then the words
--
-- Repeating it is safe: the first command of a change writes a new stamp, so that the repetition is overtaken.

if (redis.call('HGET', KEYS[1], 'stamp') or '') ~= ARGV[1] then
  return 'overtaken'
end

local guards = tonumber(ARGV[2])
local at = 3
while at <= #ARGV do
  local last = at + tonumber(ARGV[at])
  local reply = redis.call(unpack(ARGV, at + 1, last))
  if guards > 0 then
    if reply ~= 0 then
      return 'refused'
    end
    guards = guards - 1
  end
  at = last + 1
end
return 'done'
