-- Runs the commands in ARGV, each as the number of its words and then the words, and returns what each of them does.
local answers = {}
local at = 1
while at <= #ARGV do
  local last = at + tonumber(ARGV[at])
  answers[#answers + 1] = redis.call(unpack(ARGV, at + 1, last))
  at = last + 1
end
return answers
