// Gets $URL with net/http's default transport and prints the body.
package main

import (
	"io"
	"net/http"
	"os"
)

func main() {
	response, err := http.Get(os.Getenv("URL"))
	if err != nil {
		println(err.Error())
		os.Exit(1)
	}
	defer response.Body.Close()
	io.Copy(os.Stdout, response.Body)
}
