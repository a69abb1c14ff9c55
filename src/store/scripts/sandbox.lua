-- The globals of scripts: those of Redis, which cannot be changed.
--
-- Lua 5.1 has no read-only tables. A table that is to be one is hidden behind an empty one
-- that reads from it and refuses to be written; functions that look into tables know both.
-- The environment of these functions is the shield of the globals.

local real, settle, compile, handler = ...

local error, type, tostring, setmetatable, getmetatable = error, type, tostring, setmetatable, getmetatable
local next, pairs, rawget, rawset, pcall, xpcall = next, pairs, rawget, rawset, pcall, xpcall
local setfenv = setfenv
local resume, concat = coroutine.resume, table.concat

local hidden, shields = {}, {}

local function refuse()
  error("Attempt to modify a readonly table", 2)
end

local function missing(_, name)
  local kind = type(name)
  if kind ~= "string" and kind ~= "number" then
    error("Second argument to luaProtectedTableError must be a string or number", 2)
  end
  error("Script attempted to access nonexistent global variable '" .. name .. "'", 2)
end

local function shield_of(bare)
  local shield = shields[bare]
  if shield then return shield end
  shield = {}
  shields[bare] = shield
  hidden[shield] = bare
  for key, value in next, bare do
    if type(value) == "table" and not hidden[value] then bare[key] = shield_of(value) end
  end
  setmetatable(shield, { __index = bare, __newindex = refuse })
  return shield
end

local function wrong(number, name, wanted, got)
  local told = got == nil and "nil" or type(got)
  error("bad argument #" .. number .. " to '" .. name .. "' (" .. wanted .. " expected, got " .. told .. ")", 3)
end

local function settled(is_flat, is_good, ...)
  if is_good then return true, ... end
  return false, settle((...), is_flat)
end

local own = {}

function own.pcall(...)
  return settled(true, pcall(...))
end

function own.xpcall(called, handler)
  return settled(false, xpcall(called, function(raised) return handler(settle(raised, false)) end))
end

function own.next(of, key)
  if type(of) ~= "table" then wrong(1, "next", "table", of) end
  return next(hidden[of] or of, key)
end

function own.pairs(of)
  if type(of) ~= "table" then wrong(1, "pairs", "table", of) end
  return next, hidden[of] or of, nil
end

function own.rawget(of, key)
  if type(of) ~= "table" then wrong(1, "rawget", "table", of) end
  return rawget(hidden[of] or of, key)
end

function own.rawset(of, key, value)
  if type(of) ~= "table" then wrong(1, "rawset", "table", of) end
  if hidden[of] then error("Attempt to modify a readonly table", 0) end
  return rawset(of, key, value)
end

function own.setmetatable(of, metatable)
  if type(of) ~= "table" then wrong(1, "setmetatable", "table", of) end
  if metatable ~= nil and type(metatable) ~= "table" then
    error("bad argument #2 to 'setmetatable' (nil or table expected)", 2)
  end
  if hidden[of] then error("Attempt to modify a readonly table", 0) end
  if type(getmetatable(of)) ~= "table" and getmetatable(of) ~= nil then
    error("cannot change a protected metatable", 2)
  end
  return setmetatable(of, metatable)
end

function own.getmetatable(of)
  local bare = hidden[of]
  if bare then
    local metatable = getmetatable(bare)
    return metatable and shield_of(metatable)
  end
  local metatable = getmetatable(of)
  if type(of) == "string" and type(metatable) == "table" then return shield_of(metatable) end
  return metatable
end

-- Only text is compiled: what string.dump writes could be anything.
function own.loadstring(text, name)
  if type(text) == "number" then text = tostring(text) end
  if type(text) ~= "string" then wrong(1, "loadstring", "string", text) end
  return compile(text, name)
end

function own.load(piece_of, name)
  if type(piece_of) ~= "function" then wrong(1, "load", "function", piece_of) end
  local pieces, count = {}, 0
  while true do
    local piece = piece_of()
    if piece == nil or piece == "" then break end
    if type(piece) ~= "string" then return nil, "reader function must return a string" end
    count = count + 1
    pieces[count] = piece
  end
  return compile(concat(pieces), name or "=(load)")
end

local coroutines = {}
for name, value in next, coroutine do coroutines[name] = value end
function coroutines.resume(...)
  return settled(false, resume(...))
end

local kept = {
  "tostring", "assert", "tonumber", "rawequal", "collectgarbage", "type", "select", "unpack",
  "gcinfo", "ipairs", "_VERSION", "error",
  "string", "math", "table", "cjson", "bit", "cmsgpack", "struct", "redis",
}
local globals = { coroutine = coroutines, __redis__err__handler = handler }
for _, name in next, kept do globals[name] = rawget(real, name) end
for name, value in next, own do globals[name] = value end
globals._G = globals

setmetatable(globals, { __index = missing })
local shield = shield_of(globals)
globals._G = shield
local strings = getmetatable("")
strings.__index = globals.string

for _, value in next, own do setfenv(value, shield) end
for _, value in next, { refuse, missing, shield_of, wrong, settled, coroutines.resume } do setfenv(value, shield) end

-- What is at hand while a library is loaded, and where scripts look otherwise.
local function library(api)
  setmetatable(api, { __index = missing })
  local loading = { redis = api }
  setmetatable(loading, { __index = missing })
  shield_of(loading)
  return loading
end

local function bound(called, keys, arguments)
  return setfenv(function() return called(keys, arguments) end, shield)
end

return shield, globals, library, bound
