// Pace prints so many megabytes of lines a second for so many seconds, from inside a
// build, and then how long that took and when it wrote the last line:
//
//	paced 2.0004 last 1795803865123456789
package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

func main() {
	if err := pace(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "pace:", err)
		os.Exit(1)
	}
}

// pace writes in turns of 10 ms. When the reader is slow, it is late, and tells so.
func pace(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: pace MEGABYTES SECONDS")
	}
	rate, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	seconds, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	line := append(bytes.Repeat([]byte("0123456789abcdef"), 6), "\n"...)
	turn := bytes.Repeat(line, rate*1_000_000/100/len(line))
	began := time.Now()
	for n := range seconds * 100 {
		time.Sleep(time.Until(began.Add(time.Duration(n) * 10 * time.Millisecond)))
		if _, err := os.Stdout.Write(turn); err != nil {
			return err
		}
	}
	now := time.Now()
	_, err = fmt.Printf("paced %.4f last %d\n", now.Sub(began).Seconds(), now.UnixNano())
	return err
}
