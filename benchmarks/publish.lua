-- KEY is one key, or several parted by commas, which take turns.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = os.getenv("BODY")

local requests, turn = {}, 0

function init()
  for key in os.getenv("KEY"):gmatch("[^,]+") do
    wrk.headers["Authorization"] = "Bearer " .. key
    requests[#requests + 1] = wrk.format()
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end
