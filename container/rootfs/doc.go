// Package rootfs reads and writes the root file system of a container while
// nothing has it mounted: the upper directory of an overlay and the read-only
// directories below it, merged as the kernel would merge them.
//
// Working on the directories is several times faster than working through a
// mount, and needs none (stack.md, section 5). The price is paid here: every
// path is resolved component by component against all directories, whiteouts,
// opaque marks and links included, and nothing leads out (S7). Only the upper
// directory is ever changed.
//
// A tree must not be used while a container has it mounted, with the exception
// of Usage.
package rootfs
