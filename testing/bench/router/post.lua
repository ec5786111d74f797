wrk.method = "POST"
wrk.body = string.rep("x", 10240)
wrk.headers["content-type"] = "application/octet-stream"
