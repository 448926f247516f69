package daeploy_test

import (
	"strings"
	"testing"

	"github.com/daeploy/daeploy"
)

func TestNearest(t *testing.T) {
	known := []string{"apps", "builds", "build", "cancel", "logs", "status", "blog"}
	tests := []struct{ name, word, want string }{
		{"same", "logs", "logs"},
		{"swapped neighbours", "biulds", "builds"},
		{"missing letter", "cancl", "cancel"},
		{"extra letter", "statuss", "status"},
		{"wrong letter", "buildz", "builds"}, // as near as build: the first wins
		{"capitals", "BLOG", "blog"},
		{"two slips in six letters", "sttus", "status"},
		{"prefix", "stat", "status"},
		{"too far", "sendmail", ""},
		{"short and all wrong", "x", ""},
		{"empty", "", ""},
		{"endless", strings.Repeat("a", 1<<20), ""},
		{"not UTF-8", "lo\xffs", "logs"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := daeploy.Nearest(tt.word, known); got != tt.want {
				t.Errorf("Nearest(%.20q) = %q, want %q", tt.word, got, tt.want)
			}
		})
	}
	if got := daeploy.Nearest("blog", nil); got != "" {
		t.Errorf("Nearest among nothing = %q, want none", got)
	}
}
