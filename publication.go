package daeploy

import "time"

// PublicationStatus is how far an image has come on its way to a registry.
type PublicationStatus string

// The statuses.
const (
	PublicationNone    PublicationStatus = ""        // it goes to none
	PublicationPending PublicationStatus = "pending" // it is to be pushed, perhaps once more
	PublicationPushed  PublicationStatus = "pushed"
	PublicationFailed  PublicationStatus = "failed" // nobody tries again; the image is here as before
)

// Publication is an image's way to a registry. It begins when its build has
// succeeded, and whatever comes of it, the build stays as it is. Times are UTC.
type Publication struct {
	Status PublicationStatus `json:"status"`

	// Names are what the image is to be called there, or once it was pushed, is
	// called. A name that a newer build of the app has is not among the latter.
	Names  []ImageRef `json:"names"`
	Digest string     `json:"digest"` // of the manifest there, which names compressed layers: not the one here

	// Digests of the manifests of the documents beside it there, or "". Like Digest,
	// which tells that the image was pushed, they stay while it is pushed once more,
	// and if that fails.
	SBOM       string `json:"sbom,omitempty"`
	Provenance string `json:"provenance,omitempty"`

	Attempts int       `json:"attempts"`          // begun, since it is pending
	Refused  int       `json:"refused,omitempty"` // of them, those that more time would not have helped
	Code     string    `json:"code"`              // why the last one failed, or ""; with Message and Hint
	Message  string    `json:"message"`
	Hint     string    `json:"hint"`
	Since    time.Time `json:"since,omitzero"` // when it became pending
	Next     time.Time `json:"next,omitzero"`  // when the next attempt is due, if it is pending
	Ended    time.Time `json:"ended,omitzero"` // when it was pushed or had failed
}

// PendingPublication is one that begins now.
func PendingPublication(names []ImageRef) Publication {
	now := time.Now().UTC()
	return Publication{Status: PublicationPending, Names: names, Since: now, Next: now}
}

// Again is a publication that begins anew. What the registry has already, it has.
func (p Publication) Again(names []ImageRef) Publication {
	again := PendingPublication(names)
	again.Digest, again.SBOM, again.Provenance = p.Digest, p.SBOM, p.Provenance
	return again
}

// Compression is how layers are sent to a registry that are not compressed here.
type Compression string

// The compressions.
const (
	Gzip Compression = "gzip"
	Zstd Compression = "zstd"
)

// Pushed is an image as a registry has it.
type Pushed struct {
	Digest    string // of its manifest
	MediaType string // of its manifest
	Manifest  []byte // JSON
	Sent      int64  // bytes of layers and config that the registry did not have
}
