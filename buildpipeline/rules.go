package buildpipeline

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/daeploy/daeploy"
)

// Rules are what the operator has set for builds. Nobody changes them: others take
// their place as a whole (Adopt). A build has those under which its turn came.
type Rules struct {
	MaxBuilds int // builds at once, in all; at least 1
	Limits    Limits

	MaxQueued, MaxQueuedPerApp int // builds waiting, in all and of one app; 0 = no limit

	DefaultBuilder daeploy.ImageRef   // "" = none: the files of the source choose
	BuilderOrder   []daeploy.ImageRef // whom they choose first, where several fit
	PullPolicy     daeploy.PullPolicy

	AllowedUIDs  UIDRanges         // who builds may run as (S131)
	ScriptsURLs  URLPrefixes       // where builders may keep their scripts, besides images (S20)
	Scripts      Fetcher           // fetches them; must be set if ScriptsURLs has any
	Submodules   Submodules        // nil = none is fetched
	AllowBuilder bool              // whether -o builder=IMAGE is allowed
	AllowDelete  bool              // whether a push may delete the deploy branch (F17)
	NoForce      bool              // a push may not take commits off it (F25)
	ReuseImages  bool              // whether a kept image answers builds that would be built from the same
	CABundle     string            // host path of PEM certificates for builds; "" = none
	Env          map[string]string // E4: set in every build, never in an image
	Proxies      Proxies           // E4 too; what Env sets wins
	PublicURL    string            // "ssh://daeploy@host:2222", for hints; "" = unknown
	CloneURL     string            // the same for labels and builds, if the operator named it; "" = he did not (S72)
	NoNetwork    bool              // builds have no network but their own loopback (S135)

	AppEnv map[daeploy.AppName]map[string]string // E4 of one app's builds; wins over Env

	Keep    Keep                     // how much of an app's past stays
	AppKeep map[daeploy.AppName]Keep // of one app, in place of Keep
}

// Limits bound a build. Where a default and a cap stand side by side, .daeploy
// may ask for anything up to the cap (S136).
type Limits struct {
	Build      daeploy.Limits // Memory and CPUs are the defaults
	MaxMemory  int64          // bytes
	MaxCPUs    float64
	Timeout    time.Duration
	MaxTimeout time.Duration
	Silence    time.Duration
	LogBytes   int64
	Tree       daeploy.TreeLimits

	// What an app's package cache may hold after a build, in bytes on disk and
	// entries. With 0 bytes nothing is kept.
	Cache, CacheInodes int64

	// How many files a source must have for the next build's to be laid out ahead; 0 =
	// that is never done.
	SpareFiles int64

	SaveTimeout time.Duration          // of save-artifacts, inside the build's own
	Artifacts   daeploy.ArtifactLimits // what it may hand on (S97)
}

// DefaultLimits are those of faults.md, section 2.
func DefaultLimits(cpus int) Limits {
	return Limits{
		Build: daeploy.Limits{
			Memory: 2 << 30, CPUs: float64(cpus), PIDs: 512, Disk: 10 << 30, Inodes: 1_000_000, Grace: 10 * time.Second,
		},
		MaxMemory: 2 << 30, MaxCPUs: float64(cpus), Timeout: 15 * time.Minute, MaxTimeout: 15 * time.Minute,
		Silence: 10 * time.Minute, LogBytes: 64 << 20, Tree: daeploy.DefaultTreeLimits,
		Cache: 2 << 30, CacheInodes: 500_000, SpareFiles: 200,
		SaveTimeout: 5 * time.Minute, Artifacts: daeploy.ArtifactLimits{Bytes: 2 << 30, Entries: 500_000},
	}
}

// Check refuses rules that no pipeline can have.
func (r *Rules) Check() error {
	switch {
	case len(r.ScriptsURLs.prefixes) > 0 && r.Scripts == nil:
		return errors.New("buildpipeline: Scripts must be set to fetch from ScriptsURLs")
	case r.MaxBuilds < 1:
		return errors.New("buildpipeline: MaxBuilds must be at least 1")
	}
	return nil
}

// Rules are those of this moment. Who needs several of them asks once.
func (p *Pipeline) Rules() *Rules { return p.rules.Load() }

// Adopt puts rules, which have passed Check, in place of those there are. Builds
// that run keep theirs, also if there are more of them now than may run at once.
func (p *Pipeline) Adopt(r Rules) {
	p.rules.Store(&r)
	p.queue.resize(r.MaxBuilds)
}

// operatorEnv are the variables of E4 that the operator sets: what is set for
// the app wins over what is for all, and both over the proxies.
func (r *Rules) operatorEnv(app daeploy.AppName) map[string]string {
	env := r.Proxies.variables()
	maps.Copy(env, r.Env)
	maps.Copy(env, r.AppEnv[app])
	return env
}

// hidden are the texts that the output of scripts must not show (S76): what the
// operator's proxies and package mirrors know a build by.
func (r *Rules) hidden(app daeploy.AppName) []string {
	var texts []string
	for name, value := range r.operatorEnv(app) {
		texts = append(texts, passwords(name, value)...)
	}
	slices.Sort(texts)
	return slices.Compact(texts)
}

// keep are the limits of one app.
func (r *Rules) keep(app daeploy.AppName) Keep {
	if k, ok := r.AppKeep[app]; ok {
		return k
	}
	return r.Keep
}
