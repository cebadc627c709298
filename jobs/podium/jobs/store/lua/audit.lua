-- Adds a batch of events to the audit trail, once.
--
-- KEYS[1]  the trail
-- KEYS[2]  the number of the writer's last batch
-- ARGV[1]  the batch's number, which the writer raises with every batch
-- ARGV[2]  how many events are kept, about; the oldest go
-- ARGV[3…] the events
--
-- Repeating it is safe: the first time leaves the batch's number.

if tonumber(redis.call('GET', KEYS[2]) or '0') >= tonumber(ARGV[1]) then
  return 0
end
for at = 3, #ARGV do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'e', ARGV[at])
end
redis.call('SET', KEYS[2], ARGV[1], 'EX', 86400)
return 1
