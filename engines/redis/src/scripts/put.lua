-- KEYS: entry, names, ends, marks, counter.
-- ARGV: channel, name, value, expectation, ms to live or '', mark or '', epoch, most bytes in a message.
local channel, name, value, expect, life, mark, epoch = unpack(ARGV, 1, 7)
local refused = fence(KEYS[4], mark, epoch)
  or unexpected(redis.call('HGET', KEYS[1], 'r'), expect)
if refused then
  return refused
end
local before, revision = next_revision(KEYS[5])
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'v', value, 'r', revision)
if mark ~= '' then
  redis.call('HSET', KEYS[1], 'm', mark, 'e', epoch)
end
redis.call('ZADD', KEYS[2], 0, name)
if life == '' then
  redis.call('ZREM', KEYS[3], name)
else
  local now = redis.call('TIME')
  local ends = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000) + tonumber(life)
  redis.call('ZADD', KEYS[3], string.format('%.0f', ends), name)
  redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', ends))
end
local is_whole = #value <= tonumber(ARGV[8])
local message = told('P', before, revision, mark, epoch, name, is_whole and '1' or '0')
redis.call('PUBLISH', channel, is_whole and message .. value or message)
return { 'ok', revision }
