package main

import "testing"

func TestStatusLine(t *testing.T) {
	for _, tt := range []struct {
		running, queued int
		draining        bool
		want            string
	}{
		{0, 0, false, "ready"},
		{2, 1, false, "ready, 2 building, 1 queued"},
		{0, 3, true, "draining, 0 building, 3 queued"},
		{0, 0, true, "draining"},
	} {
		if got := statusLine(tt.running, tt.queued, tt.draining); got != tt.want {
			t.Errorf("statusLine(%d, %d, %v) = %q; want %q", tt.running, tt.queued, tt.draining, got, tt.want)
		}
	}
}
