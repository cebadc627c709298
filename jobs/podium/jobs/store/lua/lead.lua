-- Takes or renews a lock: 1 where ARGV[1] holds it now, for ARGV[2] milliseconds, 0 where somebody else does.
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
