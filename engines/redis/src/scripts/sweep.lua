-- KEYS: names, ends, counter. ARGV: channel, what keys of entries begin with, most names.
-- Forgets and announces keys whose time is over, and gives the partition's revision.
local channel, begin, most = unpack(ARGV)
local now = redis.call('TIME')
local ms = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
local over = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', ms), 'LIMIT', 0, most)
for _, name in ipairs(over) do
  if redis.call('EXISTS', begin .. name) == 0 then
    redis.call('ZREM', KEYS[2], name)
    redis.call('ZREM', KEYS[1], name)
    local before, revision = next_revision(KEYS[3])
    redis.call('PUBLISH', channel, told('R', before, revision, '', '0', name, '1'))
  end
end
return redis.call('GET', KEYS[3]) or '0'
