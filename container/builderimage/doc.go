// Package builderimage makes S2I builder images from a recipe and the packages
// of Debian, with mmdebstrap: no Dockerfile, no engine and no registry take
// part, and nothing of it runs in containerd.
//
// The same inputs give the same bytes. The inputs are the recipe, the scripts
// and the state of the package archive; the host, its time, umask, names and
// directories are not among them. What could carry them into the image is left
// out (hostFacts), set to a fixed value (owners' names, times after the epoch),
// or made so by mmdebstrap itself under SOURCE_DATE_EPOCH.
//
// A builder has one uncompressed layer: it is read once by the import on the
// same host, where compressing costs more than it saves.
package builderimage
