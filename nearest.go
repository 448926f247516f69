package daeploy

import "strings"

// Nearest is the known word that the one typed was most likely meant to be, or
// "" if none is close: at most one slip in each three letters, where a slip is
// a letter too many, missing, wrong, or swapped with its neighbour. Capitals
// do not matter. Of equally near words the first wins.
func Nearest(word string, known []string) string {
	const longest = 100 // a stranger's word must not buy much work
	a := []rune(strings.ToLower(word[:min(len(word), 4*longest)]))
	best, least := "", longest
	for _, k := range known {
		b := []rune(strings.ToLower(k))
		if len(a) > longest || len(b) > longest {
			continue
		}
		if d := slips(a, b); d <= max(1, max(len(a), len(b))/3) && d < min(len(a), len(b)) && d < least {
			best, least = k, d
		}
	}
	return best
}

// slips is the optimal string alignment distance: three rows of the usual
// table, the third for swapped neighbours.
func slips(a, b []rune) int {
	before, above, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range a {
		before, above, row = above, row, before
		row[0] = i + 1
		for j := range b {
			differ := 1
			if a[i] == b[j] {
				differ = 0
			}
			row[j+1] = min(above[j+1]+1, row[j]+1, above[j]+differ)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(b)]
}
