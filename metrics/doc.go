// Package metrics shows the daemon from outside, over HTTP: numbers for
// Prometheus, and two questions for whoever restarts it or sends pushes to it.
//
//	/metrics  what is (asked of the rooms when somebody reads), and what has happened since the start
//	/livez    whether the process should live on
//	/readyz   whether it takes pushes now, and if not, a code that says why
//
// Nobody proves who he is here, so nothing is shown that a stranger may not
// know but the names of apps: no secret, no commit, no person (P8). What readers
// can cost is bounded, and so are the values of each label (F135).
package metrics
