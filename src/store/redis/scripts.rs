//! The scripts: what must happen to one key at once.
//!
//! A home list begins with a marker and goes on with ids, the last one pushed at
//! its end. Ids are 8 bytes, big-endian; the marker is 25, and more during a rebuild:
//!
//! ```text
//!  0       1             9              17              25
//!  ┌───────┬─────────────┬──────────────┬───────────────┬─────────┬──
//!  │ L / R │ floor       │ ticket       │ version       │ taken   │ …   L: live, R: a
//!  └───────┴─────────────┴──────────────┴───────────────┴─────────┴──   rebuild is under way
//! ```
//!
//! `taken` are the ids that were taken away since the rebuild began. Whatever is done to a
//! list but to append ids leaves another ticket or another version, so that whoever knows
//! the list from before knows whether it has only grown.
//!
//! A slot may be on its way to another node, and stay so for long. What its old node has
//! not is looked for on the new one, at the start of a script as well as in the middle
//! of it, where nothing is undone. So a script has one key: with two, of which one does
//! not exist, it would be refused all the while. And it never drops its key to make it
//! again: a list is written anew behind what it was, which is cut off then.
//!
//! Lua compares strings as the server's locale says, and its numbers have 53 bits,
//! so ids are compared as two numbers of 32 bits.

use std::sync::Arc;

use redis::Script as Hashed;

use super::control::Script;

macro_rules! script {
    ($name:ident, $text:expr) => {
        pub(super) static $name: Script =
            Script::new($text, || Hashed::new($text).get_hash().to_owned());
    };
}

/// Those that workers run over connections of their own.
pub(super) fn of_workers() -> Arc<[&'static str]> {
    [&INSERT_POSTS, &INSERT_CAPPED, &MERGE, &TAKE, &TRIM, &MOVE_READ_MARKER]
        .map(Script::text)
        .into()
}

/// A script that can compare two ids.
macro_rules! with_less {
    ($($text:expr),+ $(,)?) => {
        concat!(
            r"
local function less(a, b)
  local ah, al = struct.unpack('>I4I4', a)
  local bh, bl = struct.unpack('>I4I4', b)
  return ah < bh or (ah == bh and al < bl)
end
",
            $($text),+
        )
    };
}

/// A script that can write a list anew: sorted, behind its marker. `ids` has no
/// repetitions; those at or below the floor, and those past `max`, are left out. It lives as
/// long as before: only reads make its life longer.
macro_rules! with_rewrite {
    ($text:expr) => {
        with_less!(
            r"
local function rewrite(home, marker, floor, ids, max)
  local high, low = {}, {}
  local kept = {}
  for _, id in ipairs(ids) do
    if less(floor, id) then
      kept[#kept + 1] = id
      high[id], low[id] = struct.unpack('>I4I4', id)
    end
  end
  table.sort(kept, function(a, b)
    return high[a] < high[b] or (high[a] == high[b] and low[a] < low[b])
  end)
  local first = 1
  while #kept - first + 1 > max do
    if less(floor, kept[first]) then floor = kept[first] end
    first = first + 1
  end
  local outdated = redis.call('LLEN', home)
  redis.call('RPUSH', home, string.sub(marker, 1, 1) .. floor .. string.sub(marker, 10))
  for from = first, #kept, 1000 do
    redis.call('RPUSH', home, unpack(kept, from, math.min(from + 999, #kept)))
  end
  redis.call('LTRIM', home, outdated, -1)
end
",
            $text
        )
    };
}

// Puts ids into an author's list, which ascends. KEYS: the list. ARGV: ids.
script!(
    INSERT_POSTS,
    with_less!(
        r"
for _, id in ipairs(ARGV) do
  local last = redis.call('LINDEX', KEYS[1], -1)
  if not last or less(last, id) then
    redis.call('RPUSH', KEYS[1], id)
  elseif last ~= id then
    local all = redis.call('LRANGE', KEYS[1], 0, -1)
    local place = #all
    while place > 0 and less(id, all[place]) do place = place - 1 end
    if place == 0 then
      redis.call('LPUSH', KEYS[1], id)
    elseif all[place] ~= id then
      redis.call('LINSERT', KEYS[1], 'AFTER', all[place], id)
    end
  end
end
return 1
"
    )
);

// Puts entries into an account's list, which ascends: ids, and behind them who has written
// them. KEYS: the list. ARGV: how many it keeps, with how many it is trimmed to that, entries.
// It is trimmed as `inboxes::kept` says.
script!(
    INSERT_CAPPED,
    with_less!(
        r"
for at = 3, #ARGV do
  local entry = ARGV[at]
  local last = redis.call('LINDEX', KEYS[1], -1)
  if not last or less(last, entry) then
    redis.call('RPUSH', KEYS[1], entry)
  elseif last ~= entry then
    local all = redis.call('LRANGE', KEYS[1], 0, -1)
    local place = #all
    while place > 0 and less(entry, all[place]) do place = place - 1 end
    if place == 0 then
      redis.call('LPUSH', KEYS[1], entry)
    elseif all[place] ~= entry then
      redis.call('LINSERT', KEYS[1], 'AFTER', all[place], entry)
    end
  end
end
if redis.call('LLEN', KEYS[1]) <= tonumber(ARGV[2]) then return 1 end
local all = redis.call('LRANGE', KEYS[1], 0, -1)
local newer, ranked = {}, {}
for place = #all, 1, -1 do
  local from = string.sub(all[place], 9)
  newer[from] = (newer[from] or 0) + 1
  ranked[#ranked + 1] = {newer[from], place}
end
table.sort(ranked, function(a, b)
  return a[1] < b[1] or (a[1] == b[1] and a[2] > b[2])
end)
local is_kept = {}
for at = 1, tonumber(ARGV[1]) do is_kept[ranked[at][2]] = true end
local rest = {}
for place = 1, #all do
  if is_kept[place] then rest[#rest + 1] = all[place] end
end
for from = 1, #rest, 1000 do
  redis.call('RPUSH', KEYS[1], unpack(rest, from, math.min(from + 999, #rest)))
end
redis.call('LTRIM', KEYS[1], #all, -1)
return 1
"
    )
);

// Reads the newest ids of an author's list that are older than another. KEYS: the list.
// ARGV: how many, that other one if there is one. Returns them, the newest last.
script!(
    OLDER,
    with_less!(
        r"
local from, to = 0, redis.call('LLEN', KEYS[1])
while ARGV[2] and from < to do
  local middle = math.floor((from + to) / 2)
  if less(redis.call('LINDEX', KEYS[1], middle), ARGV[2]) then
    from = middle + 1
  else
    to = middle
  end
end
if to == 0 then return {} end
return redis.call('LRANGE', KEYS[1], math.max(to - ARGV[1], 0), to - 1)
"
    )
);

// Moves a read marker, unless it is farther. KEYS: the marker. ARGV: the post.
script!(
    MOVE_READ_MARKER,
    with_less!(
        r"
local marker = redis.call('GET', KEYS[1])
if not marker or less(marker, ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end
return 1
"
    )
);

// Announces a rebuild, or joins the one under way. KEYS: home. ARGV: ticket, seconds
// to live. Returns the ticket.
script!(
    BEGIN_REBUILD,
    r"
local marker = redis.call('LINDEX', KEYS[1], 0)
if marker and string.sub(marker, 1, 1) == 'R' then return string.sub(marker, 10, 17) end
redis.call('RPUSH', KEYS[1], 'R' .. string.rep('\0', 8) .. ARGV[1] .. string.rep('\0', 8))
redis.call('LTRIM', KEYS[1], -1, -1)
redis.call('EXPIRE', KEYS[1], ARGV[2])
return ARGV[1]
"
);

// Ends a rebuild. KEYS: home. ARGV: ticket, floor, entries at most, seconds to live,
// ids. Returns whether the list is live.
script!(
    FINISH_REBUILD,
    with_rewrite!(
        r"
local marker = redis.call('LINDEX', KEYS[1], 0)
if not marker or string.sub(marker, 10, 17) ~= ARGV[1] then return 0 end
if string.sub(marker, 1, 1) == 'L' then return 1 end
local floor = string.sub(marker, 2, 9)
if less(floor, ARGV[2]) then floor = ARGV[2] end
local taken = {}
for at = 26, #marker, 8 do taken[string.sub(marker, at, at + 7)] = true end
local ids, seen = {}, {}
for _, id in ipairs(redis.call('LRANGE', KEYS[1], 1, -1)) do
  if not seen[id] then seen[id] = true; ids[#ids + 1] = id end
end
for place = 5, #ARGV do
  local id = ARGV[place]
  if not seen[id] and not taken[id] then seen[id] = true; ids[#ids + 1] = id end
end
rewrite(KEYS[1], 'L' .. string.sub(marker, 2, 25), floor, ids, tonumber(ARGV[3]))
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
"
    )
);

// Puts ids where they belong, with a floor. KEYS: home. ARGV: floor, entries at
// most, another version, ids. Returns how many ids the list had not.
script!(
    MERGE,
    with_rewrite!(
        r"
local marker = redis.call('LINDEX', KEYS[1], 0)
if not marker then return -1 end
local floor = string.sub(marker, 2, 9)
local raised = less(floor, ARGV[1])
if raised then floor = ARGV[1] end
if #ARGV == 4 and not raised then
  if not less(floor, ARGV[4]) or redis.call('LPOS', KEYS[1], ARGV[4]) then return 0 end
  local last = redis.call('LINDEX', KEYS[1], -1)
  if #last ~= 8 or less(last, ARGV[4]) then
    redis.call('RPUSH', KEYS[1], ARGV[4])
    return 1
  end
end
local ids, seen, new = {}, {}, 0
for _, id in ipairs(redis.call('LRANGE', KEYS[1], 1, -1)) do
  if not seen[id] then seen[id] = true; ids[#ids + 1] = id end
end
for place = 4, #ARGV do
  local id = ARGV[place]
  if not seen[id] and less(floor, id) then
    seen[id] = true
    ids[#ids + 1] = id
    new = new + 1
  end
end
if new == 0 and not raised then return 0 end
marker = string.sub(marker, 1, 17) .. ARGV[3] .. string.sub(marker, 26)
rewrite(KEYS[1], marker, floor, ids, tonumber(ARGV[2]))
return new
"
    )
);

// Takes ids out, and whatever is at or below a floor. KEYS: home. ARGV: floor, ids a
// rebuild may take away at most, another version, ids.
script!(
    TAKE,
    with_less!(
        r"
local before = redis.call('LINDEX', KEYS[1], 0)
if not before then return 0 end
local marker = before
if less(string.sub(marker, 2, 9), ARGV[1]) then
  marker = string.sub(marker, 1, 1) .. ARGV[1] .. string.sub(marker, 10)
end
local removed = 0
for place = 4, #ARGV do removed = removed + redis.call('LREM', KEYS[1], 0, ARGV[place]) end
if removed > 0 then
  marker = string.sub(marker, 1, 17) .. ARGV[3] .. string.sub(marker, 26)
end
if string.sub(marker, 1, 1) == 'R' then
  marker = marker .. table.concat(ARGV, '', 4)
  if #marker > 25 + 8 * tonumber(ARGV[2]) then
    redis.call('DEL', KEYS[1])
    return 1
  end
end
if marker ~= before then redis.call('LSET', KEYS[1], 0, marker) end
return 1
"
    )
);

// Drops ids from the beginning, if the last of them stands where it stood. KEYS: home.
// ARGV: the place of that one, it itself, the newest of them, which becomes the floor,
// another version.
script!(
    TRIM,
    with_less!(
        r"
if redis.call('LINDEX', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
local marker = redis.call('LINDEX', KEYS[1], 0)
local floor = string.sub(marker, 2, 9)
if less(floor, ARGV[3]) then floor = ARGV[3] end
local rest = string.sub(marker, 10, 17) .. ARGV[4] .. string.sub(marker, 26)
redis.call('LTRIM', KEYS[1], ARGV[1], -1)
redis.call('LSET', KEYS[1], 0, string.sub(marker, 1, 1) .. floor .. rest)
return 1
"
    )
);

// Reads some blocks of an account's followers. KEYS: followers. ARGV: the blocks' names.
// Returns how many fields there are, then the blocks.
script!(
    READ_BLOCKS,
    r"
return {redis.call('HLEN', KEYS[1]), unpack(redis.call('HMGET', KEYS[1], unpack(ARGV)))}
"
);

// Sets fields of a hash that it has not, up to the first of which it has another value.
// KEYS: the hash. ARGV: fields and values. Returns what it has in them.
script!(
    SET_IF_ABSENT,
    r"
local found = {}
for at = 1, #ARGV, 2 do
  redis.call('HSETNX', KEYS[1], ARGV[at], ARGV[at + 1])
  found[#found + 1] = redis.call('HGET', KEYS[1], ARGV[at])
  if found[#found] ~= ARGV[at + 1] then break end
end
return found
"
);

// Writes marks of a partition, if it is still this worker's. KEYS: marks. ARGV:
// epoch, fields and values. Returns whether it is. What was attempted stays so: a write
// that was given up may be carried out behind a later one. Offsets are compared as digits,
// of which a number of Lua holds no more than 53 bits.
script!(
    MARK,
    r"
local before = redis.call('HMGET', KEYS[1], 'epoch', 'attempted')
if before[1] ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
local attempted = redis.call('HGET', KEYS[1], 'attempted')
if before[2] and (#attempted < #before[2]
  or (#attempted == #before[2] and attempted < before[2])) then
  redis.call('HSET', KEYS[1], 'attempted', before[2])
end
return 1
"
);

// Takes a partition over. KEYS: marks. ARGV: the new epoch, which nobody has had
// before. Returns the marks as they were before; an error while it is shut. The owner
// stays whoever it was, until that one is known to write no more.
script!(
    CLAIM,
    r"
if redis.call('HEXISTS', KEYS[1], 'emptying') == 1 then
  return redis.error_reply('EMPTYING by roost rebuild')
end
local before = redis.call('HGETALL', KEYS[1])
redis.call('HSET', KEYS[1], 'epoch', ARGV[1])
return before
"
);

// Shuts a partition: its marks are gone, and nobody takes it over. KEYS: marks. ARGV:
// who. Returns who may still write for it, if anybody, as often as it is asked: whoever
// shut it may not have come to closing their connections.
script!(
    SHUT,
    r"
local before = redis.call('HMGET', KEYS[1], 'owner', 'released')
local writers = {}
if before[1] and before[2] ~= '1' then writers[1] = before[1] end
redis.call('HSET', KEYS[1], 'emptying', ARGV[1])
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  local stays = field == 'emptying' or (field == 'owner' and writers[1])
  if not stays then redis.call('HDEL', KEYS[1], field) end
end
return writers
"
);

// Frees a partition that is shut, which nobody has worked on then. KEYS: marks. ARGV:
// who has shut it. Returns who has, where it is somebody else or, empty, nobody.
script!(
    FREE,
    r"
local who = redis.call('HGET', KEYS[1], 'emptying')
if who ~= ARGV[1] then return who or '' end
redis.call('DEL', KEYS[1])
return false
"
);

// Renews a lease, or takes one that has expired. KEYS: the lease. ARGV: who,
// milliseconds. Returns 0 if it is not theirs, and else the time of the node, in milliseconds
// since 1970.
script!(
    RENEW_LEASE,
    r"
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
elseif not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return 0
end
local now = redis.call('TIME')
return now[1] * 1000 + math.floor(now[2] / 1000)
"
);

// Gives a lease back. KEYS: the lease. ARGV: who.
script!(
    GIVE_BACK_LEASE,
    r"
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"
);

// Writes watermarks, if the node is still the one that was looked at, and has those that it
// had then: one that was started again, or emptied, may be without what they say. KEYS: the
// watermarks. ARGV: the run id; fields, what they had, or nothing, and values. Returns whether
// they are written.
script!(
    PUT_WATERMARKS,
    r"
if string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') ~= ARGV[1] then return 0 end
for at = 2, #ARGV, 3 do
  local had = ARGV[at + 1]
  if had ~= '' and redis.call('HGET', KEYS[1], ARGV[at]) ~= had then return 0 end
end
for at = 2, #ARGV, 3 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 2]) end
return 1
"
);
