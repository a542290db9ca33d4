// Logs every request: go LOG KEY CERT ADDRESS
package main

import (
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"
	"sync"
)

func main() {
	path, key, cert, address := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	out, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		panic(err)
	}
	log.SetOutput(io.Discard)
	var lock sync.Mutex
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		line, _ := json.Marshal(map[string]any{"line": r.Method + " " + r.RequestURI, "host": r.Host, "body": n, "cut": err != nil})
		lock.Lock()
		out.Write(append(line, '\n'))
		lock.Unlock()
		io.WriteString(w, "ok")
	})
	go http.ListenAndServe(address+":80", serve)
	panic(http.ListenAndServeTLS(address+":443", cert, key, serve))
}
