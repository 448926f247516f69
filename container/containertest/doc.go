// Package containertest gives tests a containerd of their own, builder images
// made on the spot, and the contract that the engine and its fake both keep.
//
// The images' shell and commands are Debian's busybox-static: a real /bin/sh, so
// that fixtures are scripts like those of people.
package containertest
