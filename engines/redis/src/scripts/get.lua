-- KEYS: entry. Gives revision, value, mark, epoch, and the ms to live, which are negative for ever.
local entry = redis.call('HMGET', KEYS[1], 'r', 'v', 'm', 'e')
if not entry[1] then
  return {}
end
return { entry[1], entry[2], entry[3] or '', entry[4] or '', tostring(redis.call('PTTL', KEYS[1])) }
