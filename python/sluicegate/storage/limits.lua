-- One round of one gateway process with the limits that several machines count together: it says that it lives, settles
-- what has ended, and admits or refuses what waits. All of it happens at one moment, on one clock, that of this server.
--
-- sluicegate:alive          sorted set: process → until when it counts as alive (microseconds)
-- sluicegate:batches        hash: process → the number of the last round of it that was done
-- sluicegate:holds:PROCESS  set: the counters of which it holds something
-- sluicegate:gone:PROCESS   hash: what budgets were charged when it was found dead; it may come back
-- the keys of rates         two doubles: what is owed, in tokens times microseconds of a period; as of when
-- the keys of counters      hash: h, held by all; @PROCESS, held by one; of budgets: s, spent; p, in which period;
--                           seed:SOURCE, that what this source knows of the time before is in it
local ALIVE, BATCHES = 'sluicegate:alive', 'sluicegate:batches'
local HOLDS, GONE = 'sluicegate:holds:', 'sluicegate:gone:'
local DAY = 86400000000
-- Of a budget, from the beginning of its period on.
local KEPT = 45 * 86400000
local ask = cmsgpack.unpack(ARGV[1])
local me, source = ask.process, ask.source
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local function whole(number) return string.format('%.0f', number) end

local function field(key, name) return tonumber(redis.call('HGET', key, name) or '0') end

local function add(key, name, amount) return tonumber(redis.call('HINCRBY', key, name, whole(amount))) end

-- Days, weeks from Monday and months since 1970, from 1 on: as `calendar.rs` counts them.
local function ordinal(every, at)
  local day = math.floor(at / DAY)
  if every == 'day' then return day + 1 end
  if every == 'week' then return math.floor((day + 3) / 7) + 1 end
  if every == 'total' then return 1 end
  local z = day + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local month = math.floor((5 * doy + 2) / 153) + 3
  local year = yoe + era * 400
  if month > 12 then month, year = month - 12, year + 1 end
  return (year - 1970) * 12 + month
end

-- Held by a process.

local function hold(key, amount)
  if amount <= 0 then return end
  add(key, 'h', amount)
  if add(key, '@' .. me, amount) == amount then redis.call('SADD', HOLDS .. me, key) end
end

local function release(key, process, amount)
  local have = field(key, '@' .. process)
  local gone = math.min(have, amount)
  if gone <= 0 then return end
  if add(key, 'h', -gone) <= 0 and redis.call('HEXISTS', key, 'p') == 0 then
    -- Places that nobody holds need no room.
    redis.call('DEL', key)
    redis.call('SREM', HOLDS .. process, key)
  elseif gone == have then
    redis.call('HDEL', key, '@' .. process)
    redis.call('SREM', HOLDS .. process, key)
  else
    add(key, '@' .. process, -gone)
  end
end

-- A process is dead: its places are free. What it had reserved of budgets counts as spent; if it is not dead after all,
-- it has this undone.
local function reap(process)
  local tomb = GONE .. process
  redis.call('HSET', tomb, '#', redis.call('HGET', BATCHES, process) or '0')
  for _, key in ipairs(redis.call('SMEMBERS', HOLDS .. process)) do
    local have = field(key, '@' .. process)
    local is_budget = redis.call('HEXISTS', key, 'p') == 1
    release(key, process, have)
    if have > 0 and is_budget then
      add(key, 's', have)
      redis.call('HSET', tomb, key, whole(have))
    end
  end
  redis.call('PEXPIRE', tomb, 86400000)
  redis.call('DEL', HOLDS .. process)
  redis.call('HDEL', BATCHES, process)
  redis.call('ZREM', ALIVE, process)
end

-- Rates.

local function owe(key, limit, owed)
  redis.call('SET', key, struct.pack('dd', owed, now), 'PX', whole(owed / limit / 1000 + 60000))
end

local function owed_now(key, limit, most)
  local found = redis.call('GET', key)
  if not found then return 0 end
  local owed, at = struct.unpack('dd', found)
  if at > now then
    -- The clock stepped back: it goes on from here, and nobody waits until it is as late again.
    owe(key, limit, owed)
    at = now
  end
  return math.min(math.max(0, owed - (now - at) * limit), 2 * most)
end

-- Budgets.

local function turn(key, every)
  local period, known = ordinal(every, now), field(key, 'p')
  if known == period or known == period + 1 then return end
  if known == 0 then
    redis.call('HSET', key, 'p', whole(period))
  elseif period > known then
    redis.call('HSET', key, 's', '0', 'p', whole(period))
  else
    -- The clock was far ahead for a while. What was spent then stays spent.
    redis.call('HSET', key, 'p', whole(period))
  end
  if every ~= 'total' then redis.call('PEXPIRE', key, KEPT) end
end

local function used_of(key, every)
  local found = redis.call('HMGET', key, 'p', 's', 'h', 'seed:' .. source)
  local spent, held = tonumber(found[2] or '0'), tonumber(found[3] or '0')
  local known = tonumber(found[1] or '0')
  if ordinal(every, now) > known then spent = 0 end
  return math.max(0, spent + held), source == '' or found[4] ~= false, known
end

local function spend(key, every, amount, only_if_known)
  if only_if_known and redis.call('HEXISTS', key, 'p') == 0 then return end
  turn(key, every)
  if amount ~= 0 then add(key, 's', amount) end
end

-- What has ended.

local settle = {
  rate = function(op)
    local key, limit, period, burst, reserved, used, after, at = unpack(op, 2)
    local owed = owed_now(key, limit, burst * period)
    if used > reserved then
      owed = math.min(owed + (used - reserved) * period, 2 * burst * period)
    else
      -- At most what time has not given back already.
      local left = math.max(0, after - math.max(0, now - at) * limit)
      owed = math.max(0, owed - math.min(left, (reserved - used) * period))
    end
    owe(key, limit, owed)
  end,
  place = function(op) release(op[2], me, 1) end,
  budget = function(op)
    release(op[2], me, op[4])
    spend(op[2], op[3], op[5], false)
  end,
  seed = function(op)
    turn(op[2], op[3])
    if redis.call('HSETNX', op[2], 'seed:' .. source, '1') == 1 then add(op[2], 's', op[4]) end
  end,
  correct = function(op)
    if field(op[2], 'p') == ordinal(op[3], op[5]) then spend(op[2], op[3], op[4], true) end
  end,
}

-- What begins. Nothing is taken where one limit refuses; the one that is waited for longest is told.

-- `seen`: what each rule stands at, as far as `admit` needs it.
local function refusal(rules, seen)
  local worst, weight = nil, -1
  for number, rule in ipairs(rules) do
    local kind, key = rule[1], rule[2]
    local reason, wait, owed
    if kind == 'rate' then
      local amount, limit, burst, period = rule[3], rule[4], rule[5], rule[6]
      owed = owed_now(key, limit, burst * period)
      seen[number] = owed + amount * period
      local beyond = seen[number] - burst * period
      if amount > burst then
        reason, wait = 'too_large', 4e18
      elseif beyond > 0 then
        reason, wait = 'rate', math.ceil(beyond / limit)
      end
    elseif kind == 'place' then
      if field(key, 'h') >= rule[3] then reason, wait = 'concurrent', 0 end
    else
      seen[number] = { used_of(key, rule[5]) }
      if seen[number][1] >= rule[4] then reason, wait = 'budget', 3e18 end
    end
    if reason and wait > weight then
      worst, weight = { false, number - 1, reason, wait, owed or 0 }, wait
    end
  end
  return worst
end

local function admit(rules)
  local levels, unseeded = {}, {}
  local refused = refusal(rules, levels)
  if refused then return refused end
  for number, rule in ipairs(rules) do
    local kind, key = rule[1], rule[2]
    if kind == 'rate' then
      owe(key, rule[4], levels[number])
    elseif kind == 'place' then
      levels[number] = 0
      hold(key, 1)
    else
      local used, seeded, known = unpack(levels[number])
      levels[number] = used
      if known ~= ordinal(rule[5], now) then turn(key, rule[5]) end
      if not seeded then unseeded[#unseeded + 1] = number - 1 end
      hold(key, rule[3])
    end
  end
  return { true, levels, unseeded }
end

-- A process comes, or comes back: instead of whatever it may have held under its names before, it holds what it says.

local function done(process, number)
  local known = redis.call('HGET', BATCHES, process) or redis.call('HGET', GONE .. process, '#')
  return known and tonumber(known) >= number
end

local function join(news)
  -- Rounds that had no answer: what they would have charged counts, unless one of them was done.
  for _, round in ipairs(news.unsure) do
    local was_done = false
    for _, one in ipairs(round[1]) do was_done = was_done or done(one[1], one[2]) end
    if not was_done then
      for _, charge in ipairs(round[2]) do spend(charge[1], charge[2], charge[3], source ~= '') end
    end
  end
  for _, old in ipairs(news.before) do
    for _, key in ipairs(redis.call('SMEMBERS', HOLDS .. old)) do
      release(key, old, field(key, '@' .. old))
    end
    local charged = redis.call('HGETALL', GONE .. old)
    for n = 1, #charged, 2 do
      if charged[n] ~= '#' and redis.call('HEXISTS', charged[n], 'p') == 1 then
        add(charged[n], 's', -tonumber(charged[n + 1]))
      end
    end
    redis.call('DEL', HOLDS .. old, GONE .. old)
    redis.call('HDEL', BATCHES, old)
    redis.call('ZREM', ALIVE, old)
  end
  for _, charge in ipairs(news.spent) do spend(charge[1], charge[2], charge[3], source ~= '') end
  for _, held in ipairs(news.holds) do
    if held[2] ~= '' then turn(held[1], held[2]) end
    hold(held[1], held[3])
  end
end

for _, process in ipairs(redis.call('ZRANGEBYSCORE', ALIVE, '-inf', whole(now), 'LIMIT', 0, 5)) do reap(process) end
if ask.join then
  join(ask.join)
elseif not redis.call('ZSCORE', ALIVE, me) then
  -- It was taken for dead, or this server has forgotten everything: it has to join first.
  return cmsgpack.pack({ false, whole(now), 0, {} })
end
if ask.leaves then return cmsgpack.pack({ true, whole(now), redis.call('ZCARD', ALIVE), {} }) end
redis.call('ZADD', ALIVE, whole(now + ask.lease), me)
redis.call('HSET', BATCHES, me, ask.number)
for _, op in ipairs(ask.settles) do settle[op[1]](op) end
local answers = {}
for number, rules in ipairs(ask.admits) do answers[number] = admit(rules) end
return cmsgpack.pack({ true, whole(now), redis.call('ZCARD', ALIVE), answers })
