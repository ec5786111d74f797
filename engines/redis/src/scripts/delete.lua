-- KEYS: entry, names, ends, marks, counter.
-- ARGV: channel, name, expectation, mark or '', epoch.
local channel, name, expect, mark, epoch = unpack(ARGV)
local current = redis.call('HGET', KEYS[1], 'r')
local refused = fence(KEYS[4], mark, epoch) or unexpected(current, expect)
if refused then
  return refused
end
if not current then
  return { 'ok', '0' }
end
-- The first command frees memory, so that Redis lets it through when it has none left.
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], name)
redis.call('ZREM', KEYS[3], name)
local before, revision = next_revision(KEYS[5])
redis.call('PUBLISH', channel, told('R', before, revision, mark, epoch, name, '1'))
return { 'ok', revision }
