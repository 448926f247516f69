// Package buildpipeline turns a push into an image: the queue, the app's
// .daeploy file, the S2I contract, and the steps of a build in order.
package buildpipeline
