-- Writes a new job in QUEUED, all of it or nothing: its place in line, from 1; 0 where it is there, and in line no
-- longer; or -1: its request_id was used, or the checkpoint that it starts from is gone.
--
-- KEYS[1]  the job's hash. Beside lua/commit.lua this alone writes `stamp` and `state` in it
-- KEYS[2]  the counter of all jobs, whose next value is the job's number
-- KEYS[3]  the jobs of its project
-- KEYS[4]  the line that it goes into
-- KEYS[5]  its events
-- KEYS[6]  the pools that jobs ever asked for
-- KEYS[7…] where it has a request_id, the key of that; then, where it starts from a checkpoint, those of the checkpoint
--          and of the jobs that start from it
-- ARGV     job id, stamp, born, now, ledger as far as the number, what all scores of its class lie above, event, pool,
--          bell; of the request_id job and digest, and seconds, or two empty words; whether it starts from a checkpoint
--
-- Repeating it is safe: the first time leaves the job, and ids are never given out twice.

local id, stamp, born, now, ledger, above, event, pool, bell, request, seconds, starts = unpack(ARGV)

if redis.call('EXISTS', KEYS[1]) == 0 then
  local next = 7
  if request ~= '' then
    next = 8
    if redis.call('EXISTS', KEYS[7]) == 1 then
      return -1
    end
  end
  if starts == '1' and redis.call('EXISTS', KEYS[next]) == 0 then
    return -1
  end

  local number = redis.call('INCR', KEYS[2])
  local written = string.format('%.0f', number)
  redis.call('HSET', KEYS[1], 'born', born, 'now', now, 'ledger', ledger .. written .. '}', 'stamp', stamp,
    'state', 'QUEUED 0 ' .. stamp)
  redis.call('ZADD', KEYS[3], written, id)
  redis.call('ZADD', KEYS[4], string.format('%.0f', above + number), id)
  redis.call('XADD', KEYS[5], '1-0', 'd', event)
  redis.call('SADD', KEYS[6], pool)
  if request ~= '' then
    redis.call('SET', KEYS[7], request, 'EX', seconds)
  end
  if starts == '1' then
    redis.call('SADD', KEYS[next + 1], id)
  end
  redis.call('PUBLISH', bell, id)
end
return (redis.call('ZRANK', KEYS[4], id) or -1) + 1
