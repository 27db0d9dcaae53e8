-- Takes out the entries that are not in the order: somebody added them by hand.
-- KEYS: stream, meta.  Returns how many there were.
local last = redis.call('HGET', KEYS[2], 'last')
if not last then return 0 end
local strange = redis.call('XRANGE', KEYS[1], '(0-' .. last, '+')
for _, entry in ipairs(strange) do redis.call('XDEL', KEYS[1], entry[1]) end
if #strange > 0 then redis.call('XSETID', KEYS[1], '0-' .. last) end
return #strange
