-- Writes and forgets tokens, if nobody has written any since they were read: 1, or 0 where somebody has.
--
-- KEYS[1]  the hash of all tokens; `version` in it is written here alone
-- ARGV[1]  the version that was read; 0 where there was none
-- ARGV[2]  who writes: a word that no other write has
-- ARGV[3…] pairs of a token's id and its record; an empty record forgets it
--
-- Repeating it is safe: the first time leaves its word.

local known = redis.call('HMGET', KEYS[1], 'version', 'writer')
if known[2] == ARGV[2] then
  return 1
end
if (known[1] or '0') ~= ARGV[1] then
  return 0
end
for at = 3, #ARGV, 2 do
  if ARGV[at + 1] == '' then
    redis.call('HDEL', KEYS[1], ARGV[at])
  else
    redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
  end
end
redis.call('HSET', KEYS[1], 'writer', ARGV[2], 'version', tonumber(ARGV[1]) + 1)
return 1
