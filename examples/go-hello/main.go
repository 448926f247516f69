// Command hello says hello on $PORT.
package main

import (
	"cmp"
	"fmt"
	"log"
	"net/http"
	"os"
	"runtime"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "Hello from Go\n%s, user %d\n", runtime.Version(), os.Getuid())
	})
	port := cmp.Or(os.Getenv("PORT"), "8080")
	log.Printf("listening on port %s", port)
	log.Fatal(http.ListenAndServe(":"+port, nil))
}
