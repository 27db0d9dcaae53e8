-- Finds out which commands the user may not run, before anything is done by half: a script whose command is
-- forbidden ends there, and what it has done before stays.
-- ARGV: a key.
-- Returns: what no channel can do without, what making and putting away channels takes; each as words.
local key = ARGV[1]
local function lacking(commands)
  local found = {}
  for _, command in ipairs(commands) do
    -- It raises an error for a command that there is not: one may have been given another name.
    local is_there, may = pcall(redis.acl_check_cmd, unpack(command))
    if not (is_there and may) then found[#found + 1] = command[1] end
  end
  return table.concat(found, ', ')
end
return {
  lacking{
    {'TIME'}, {'SISMEMBER', key, 'm'}, {'EXISTS', key}, {'DEL', key}, {'GET', key}, {'SET', key, 'v'},
    {'HGET', key, 'f'}, {'HMGET', key, 'f'}, {'HSET', key, 'f', 'v'},
    {'XADD', key, '*', 'f', 'v'}, {'XTRIM', key, 'MINID', '0-1'}, {'XRANGE', key, '-', '+'},
    {'XREAD', 'STREAMS', key, '0-0'}, {'XINFO', 'STREAM', key},
  },
  lacking{{'HGETALL', key}, {'HSETNX', key, 'f', 'v'}, {'HDEL', key, 'f'}, {'SADD', key, 'm'}, {'KEYS', key}},
}
