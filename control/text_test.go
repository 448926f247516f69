package control_test

import (
	"testing"
	"time"

	"github.com/daeploy/daeploy/control"
)

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour: "0s", 0: "0s", 59*time.Second + 999*time.Millisecond: "59s", time.Minute: "1m", 59*time.Minute + 59*time.Second: "59m",
		time.Hour: "1h", 47 * time.Hour: "47h", 48 * time.Hour: "2d", 1000 * time.Hour: "41d",
	} {
		if got := control.Age(d); got != want {
			t.Errorf("age(%s) = %s, want %s", d, got, want)
		}
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		20 * time.Millisecond: "0.0s", 12345 * time.Millisecond: "12.3s", 59960 * time.Millisecond: "1m00s",
		125 * time.Second: "2m05s", 59*time.Minute + 59*time.Second + 990*time.Millisecond: "1h00m", 62 * time.Minute: "1h02m",
	} {
		if got := control.Span(d); got != want {
			t.Errorf("span(%s) = %s, want %s", d, got, want)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 10188: "9.9 KiB", 10190: "10 KiB", 1<<20 - 1: "1.0 MiB", 38 << 20: "38 MiB", 1288490188: "1.2 GiB", 1<<63 - 1: "8.0 EiB",
	} {
		if got := control.Size(n); got != want {
			t.Errorf("size(%d) = %s, want %s", n, got, want)
		}
	}
}
