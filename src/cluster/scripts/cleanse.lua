-- Takes out stray entries, which are not in the order: somebody added them by hand.
-- KEYS: stream, meta.  Returns how many there were.
local last = redis.call('HGET', KEYS[2], 'last')
if not last then return 0 end
local stray = redis.call('XRANGE', KEYS[1], '(0-' .. last, '+')
if #stray > 0 then
  -- The stream forgets the highest id that it had only when it is made anew.
  local good = redis.call('XRANGE', KEYS[1], '-', '0-' .. last)
  redis.call('DEL', KEYS[1])
  for _, entry in ipairs(good) do redis.call('XADD', KEYS[1], entry[1], unpack(entry[2])) end
end
return #stray
