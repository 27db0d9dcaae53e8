-- Gives back a piece that the engine has lost, or fills an engine that has none.
-- KEYS: stream, meta, the highest batch of the node that the piece came from, its Idempotency-Key's ids,
--       what was put away.
-- ARGV: epoch, run, first line, hash before it, lines, times, senders, origin "NODE.BATCH" (or ""),
--       key (or ""), batch (or 0), last line, hash after it, name and epoch of the file, settling time in ms,
--       first line to keep (0: all).
-- Returns: ok | moved | fork | epoch | run

-- How long a node's highest batch and the ids of a key are kept, in seconds: a day. append.lua has the same.
local A_DAY = 86400
if redis.call('SISMEMBER', KEYS[5], ARGV[13]) == 1 then
  return redis.error_reply('AWAY the channel was put away')
end
local meta = redis.call('HMGET', KEYS[2], 'epoch', 'run', 'last', 'chain', 't', 'settled')
if meta[2] ~= ARGV[2] then return {'run'} end
if not meta[1] then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[2], 'epoch', ARGV[1], 'last', 0, 'chain', '')
  meta[1], meta[3], meta[4] = ARGV[1], 0, ''
end
if meta[1] ~= ARGV[1] then return {'epoch'} end
if tonumber(meta[3]) + 1 ~= tonumber(ARGV[3]) then return {'moved'} end
if meta[4] ~= ARGV[4] then return {'fork'} end
local entry = {'d', ARGV[5], 'h', ARGV[12], 't', ARGV[6]}
if ARGV[7] ~= '' then entry[7], entry[8] = 'f', ARGV[7] end
if ARGV[8] ~= '' then entry[#entry + 1], entry[#entry + 2] = 'b', ARGV[8] end
if ARGV[9] ~= '' then entry[#entry + 1], entry[#entry + 2] = 'k', ARGV[9] end
-- First what may fail: an entry that somebody added by hand may be in the way.
redis.call('XADD', KEYS[1], '0-' .. ARGV[11], unpack(entry))
if ARGV[8] ~= '' then
  local highest = tonumber(redis.call('GET', KEYS[3]) or 0)
  redis.call('SET', KEYS[3], math.max(highest, tonumber(ARGV[10])), 'EX', A_DAY)
end
if ARGV[9] ~= '' then redis.call('SET', KEYS[4], ARGV[3] .. ' ' .. ARGV[11], 'EX', A_DAY) end
local t = 0
for time in string.gmatch(ARGV[6], '%d+') do t = math.max(t, tonumber(time)) end
-- A node that lacks lines must not have a number given out while another still gives them back.
local time = redis.call('TIME')
local settled = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[14]
redis.call('HSET', KEYS[2], 'last', ARGV[11], 'chain', ARGV[12], 't', math.max(t, tonumber(meta[5] or 0)),
  'settled', math.max(settled, tonumber(meta[6] or 0)))
-- A long file may be more than the engine has room for.
if ARGV[15] ~= '0' then redis.call('XTRIM', KEYS[1], 'MINID', '~', '0-' .. ARGV[15]) end
return {'ok'}
