-- KEYS: marks. ARGV: pairs of mark and epoch. Each is raised that is not higher already; gives the
-- epoch of the last that is, or ''.
local higher = ''
for index = 1, #ARGV, 2 do
  local mark, epoch = ARGV[index], ARGV[index + 1]
  local known = redis.call('HGET', KEYS[1], mark) or ''
  if known < epoch then
    redis.call('HSET', KEYS[1], mark, epoch)
  elseif known > epoch then
    higher = known
  end
end
return higher
