package rootfs

// Refused is tested alone: not every file system has each of its limits.
var Refused = refused
