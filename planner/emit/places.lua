-- Which instance a session goes to: a known session to its own, a new one to where the smallest share of places is
-- taken. A server's weight is the number of its places. A session leaves when it is finished, or has sent nothing for
-- so long. A server named ...-rankR-... is the data-parallel rank R of its instance.
local SWEEP_S = 60
local sessions, taken, swept = {}, {}, 0

local function forget(id)
  local session = sessions[id]
  if session then
    taken[session.server] = taken[session.server] - 1
    sessions[id] = nil
  end
end

local function sweep(now, idle_s)
  if now - swept < SWEEP_S then return end
  swept = now
  for id, session in pairs(sessions) do
    if now - session.seen >= idle_s then forget(id) end
  end
end

-- Places of a server: none while it is down.
local function places(server)
  local stats = server:get_stats()
  return stats.status:sub(1, 2) == "UP" and tonumber(stats.weight) or 0
end

local function freest()
  local best, least
  for name, server in pairs(core.backends.instances.servers) do
    local all = places(server)
    if all > 0 then
      local share = ((taken[name] or 0) + 1) / all
      if not least or share < least or (share == least and name < best) then best, least = name, share end
    end
  end
  return best
end

core.register_action("place", { "http-req" }, function(txn, idle_s)
  local id = txn.sf:req_hdr("X-Session-ID")
  if id == "" then return end
  local now = core.now().sec
  sweep(now, tonumber(idle_s))
  local session = sessions[id]
  if not session or places(core.backends.instances.servers[session.server]) == 0 then
    forget(id)
    local server = freest()
    if not server then return end
    session = { server = server }
    sessions[id] = session
    taken[server] = (taken[server] or 0) + 1
  end
  session.seen = now
  txn:set_var("txn.instance", session.server)
  local rank = session.server:match("%-rank(%d+)%-")
  if rank then txn:set_var("txn.rank", rank) end
end, 1)

core.register_action("finish", { "http-req" }, function(txn)
  forget(txn.sf:url_param("session_id"))
end)
