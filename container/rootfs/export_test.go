package rootfs

// Refused is tested alone: not every file system has each of its limits.
var Refused = refused

// RemoveEach is tested alone: no file system at hand names what is not there.
var RemoveEach = removeEach
