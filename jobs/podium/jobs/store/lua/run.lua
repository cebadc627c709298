-- Runs the commands in ARGV from place `at` on, each as the number of its words and then the words.
--
-- So many of them are guards. They come first, and the first word of each is the number that the rest of it must return:
-- false where one returns another, and then nothing has been written.
local function run(at, guards)
  while at <= #ARGV do
    local last = at + tonumber(ARGV[at])
    if guards > 0 then
      if redis.call(unpack(ARGV, at + 2, last)) ~= tonumber(ARGV[at + 1]) then
        return false
      end
      guards = guards - 1
    else
      redis.call(unpack(ARGV, at + 1, last))
    end
    at = last + 1
  end
  return true
end
