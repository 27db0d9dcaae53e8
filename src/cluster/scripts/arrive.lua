-- Notes which run of the engine this is, and tells how far the order has come.
-- KEYS: stream, meta, what was put away.
-- ARGV: run, settling time in ms, epoch for an engine that has none (or ""), name and epoch of the file.
-- Returns: epoch, number of the last line, hash after it, ms until numbers are given out.
if redis.call('SISMEMBER', KEYS[3], ARGV[4]) == 1 then
  return redis.error_reply('AWAY the channel was put away')
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local meta = redis.call('HMGET', KEYS[2], 'epoch', 'run', 'settled', 'last', 'chain')
-- A record that somebody broke is as good as a lost one.
if meta[1] and not (tonumber(meta[3]) and tonumber(meta[4]) and meta[5]) then
  redis.call('DEL', KEYS[2])
  meta = {}
end
local settled = tonumber(meta[3] or 0)
-- A clock that was set back must not make the time longer.
if meta[2] ~= ARGV[1] or settled > now + ARGV[2] then
  settled = now + ARGV[2]
  redis.call('HSET', KEYS[2], 'run', ARGV[1], 'settled', settled)
end
local epoch = meta[1]
-- Where the record is lost and the lines are not, a node that has them gives the record back.
if not epoch and ARGV[3] ~= '' and redis.call('EXISTS', KEYS[1]) == 0 then
  epoch = ARGV[3]
  redis.call('HSET', KEYS[2], 'epoch', epoch, 'last', 0, 'chain', '')
end
return {epoch or '', tonumber(meta[4] or 0), meta[5] or '', math.max(settled - now, 0)}
