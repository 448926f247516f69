package daeploy

// Freed is what was taken of one app's past, or with a dry run would be.
type Freed struct {
	App    AppName
	Builds []BuildID  // gone, each with its record, log, pin and image
	Images []ImageRef // gone, those of builds whose records stay included

	ImageBytes int64 // what the builds had added to them, as layers
	LogBytes   int64
	CacheBytes int64 // of the package cache
	GitBytes   int64 // objects that nothing reaches any more; of a dry run about

	Left string // what stays for now and why, in a few words; "" for nothing
}

// Nothing tells whether nothing was freed.
func (f *Freed) Nothing() bool {
	return len(f.Builds)+len(f.Images) == 0 && f.CacheBytes == 0 && f.GitBytes == 0
}

// Collected is what one garbage collection came to.
type Collected struct {
	Apps      []Freed    // those of which something was freed, or is left for now; by name
	Unclaimed []ImageRef // images of no build that is known
	Caches    []AppName  // apps that are gone and had left a package cache
	Leftovers []BuildID  // builds that are over, of which containerd still had something

	DatabaseBytes int64 // size of its file, which does not shrink
	DatabaseFree  int64 // of those, for the next records
}
