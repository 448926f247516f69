// Package container is the only room that speaks to containerd: images,
// writable root file systems, processes that run to their end, and the commit
// of what they left behind.
//
// # What is kept where
//
// Everything of a build carries its id, so that any daemon can find, go on with
// or remove it, and nothing else is needed for that:
//
//	lease      daeploy-blog-17   holds all below until the build is over
//	snapshot   daeploy-blog-17   the writable root file system
//	container  blog-17           with the task; the exit status is kept as its label
//	directory  <state>/run/blog-17/   the output file and the files bound into the container
//
// An app may have a source that is laid out for its next build (Spare):
//
//	lease      daeploy-blog.spare   labelled daeploy.io/spare ("blog")
//	snapshot   daeploy-blog.spare   without a parent: the source, and a note of what it is
//
// A push to a registry holds the image by a lease of its own, and so does who looks
// through an image's files, with a view of its snapshot. Layers have labels that
// say what they are compressed, and blobs where a registry has them.
//
// All carry the label daeploy.io/owner (the daemon's instance id), and what is a build's
// daeploy.io/build ("blog/17"). Image labels never become container labels.
//
// A lease has no expiry: containerd cannot move one, and a build that outlived
// its lease would lose its files. Leftovers finds what a crash left.
package container
