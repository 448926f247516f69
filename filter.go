package daeploy

// BuildFilter chooses builds for a list. The zero filter chooses all.
type BuildFilter struct {
	// Apps are the only apps looked at. Nil means every app; empty but not nil
	// means none: the list of a key that may read nothing.
	Apps     []AppName
	Statuses []Status // nil or empty = any
	Limit    int      // at most so many, the newest; 0 = no limit
}
