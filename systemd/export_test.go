package systemd

// DoorsOf and WallsOf read what `systemctl show` has printed.
func DoorsOf(out string) Doors { return parse(out).doors() }

func WallsOf(out string) Walls { return parse(out).walls() }
