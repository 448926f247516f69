package gitreceive

import "time"

// Limits are those of faults.md, section 2; a zero field means its default.
type Limits struct {
	UnauthStart, UnauthPercent, UnauthFull int // early drop: from Start on Percent % are dropped, at Full all
	PerSource                              int // connections of one IPv4 address or IPv6 /64
	Channels                               int // open at once on one connection

	Login     time.Duration // from accept to the first session
	NoSession time.Duration // how long a proven connection may have none open
	Keepalive time.Duration // between probes; Misses unanswered ones close
	Misses    int
	Stall     time.Duration // how long a client may accept no byte
	Early     time.Duration // what a client gets that sends a push at once, until its repository is made and it is read
	Farewell  time.Duration // what sessions get for their last words at shutdown

	Execs, ExecsPerKey int // commands that are not git's, run at once, in all and of one key

	Receives, ReceivesPerKey int   // pushes received at once, in all and of one key
	Commands                 int   // ref commands of one push
	RefLen                   int   // bytes of a ref name
	Refs                     int   // of one app
	Objects                  int64 // of one pack
	PackBytes                int64
	ObjectBytes              int64 // of one object, expanded
	RepositoryBytes          int64
	Memory                   int64 // of each git process, bytes of data
	CPU                      time.Duration
	Silence                  time.Duration // without a byte while receiving
	Receive                  time.Duration // of one push, until git has it all
}

// DefaultLimits are those of a Config that sets none.
func DefaultLimits() Limits { return Limits{}.orDefaults() }

func (l Limits) orDefaults() Limits {
	orInt(&l.UnauthStart, 10)
	orInt(&l.UnauthPercent, 30)
	orInt(&l.UnauthFull, 100)
	orInt(&l.PerSource, 20)
	orInt(&l.Channels, 10)
	orInt(&l.Login, 20*time.Second)
	orInt(&l.NoSession, 30*time.Second)
	orInt(&l.Keepalive, 15*time.Second)
	orInt(&l.Misses, 4)
	orInt(&l.Stall, 5*time.Minute)
	orInt(&l.Early, 5*time.Second)
	orInt(&l.Farewell, 4*time.Second)
	orInt(&l.Execs, 200)
	orInt(&l.ExecsPerKey, 20)
	orInt(&l.Receives, 4)
	orInt(&l.ReceivesPerKey, 2)
	orInt(&l.Commands, 100)
	orInt(&l.RefLen, 255)
	orInt(&l.Refs, 2000)
	orInt(&l.Objects, 200_000)
	orInt(&l.PackBytes, 512<<20)
	orInt(&l.ObjectBytes, 100<<20)
	orInt(&l.RepositoryBytes, 4<<30)
	orInt(&l.Memory, 768<<20)
	orInt(&l.CPU, 120*time.Second)
	orInt(&l.Silence, 60*time.Second)
	orInt(&l.Receive, 30*time.Minute)
	return l
}

func orInt[T int | int64 | time.Duration](v *T, def T) {
	if *v == 0 {
		*v = def
	}
}
