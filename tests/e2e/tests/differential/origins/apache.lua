-- Reads the body, and tells the log how long it was, where it can: mod_lua reads only those that say so,
-- and none of a GET.
function handle(r)
    local body = r:requestbody()
    if r.headers_in["Content-Length"] and r.method == "POST" then
        r.notes["body"] = tostring(body and #body or 0)
    end
    r:puts("ok")
    return apache2.OK
end
