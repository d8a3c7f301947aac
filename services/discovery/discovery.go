// Package discovery puts Dionysia's parts into Consul and finds them again by
// DNS: a Registrar keeps one service instance registered for as long as its
// role runs, a Resolver turns an origin's id into addresses by asking for the
// SRV record <id>.origin.service.<domain>.
//
// Registrations grow with nodes, never with streams: the service "origin" has
// one instance per worker, and the worker's id, a lowercase DNS label, is its
// tag.
package discovery

import (
	"errors"
	"fmt"
)

// OriginService is the name under which every worker's origin is registered.
const OriginService = "origin"

// ErrUnknown says that Consul's DNS knows no passing instance of an origin and
// that none was known before.
var ErrUnknown = errors.New("origin unknown to DNS")

// maxLabel is the longest DNS label, RFC 1035 section 2.3.4.
const maxLabel = 63

// CheckLabel reports whether id can be an origin's id: a lowercase DNS label
// of at most 63 bytes that starts and ends with a letter or a digit.
func CheckLabel(id string) error {
	if id == "" || len(id) > maxLabel {
		return fmt.Errorf("id %q: must have 1 to %d characters", id, maxLabel)
	}
	for i := range len(id) {
		c := id[i]
		inner := c == '-' && i > 0 && i < len(id)-1
		if !inner && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return fmt.Errorf("id %q: must be a lowercase DNS label", id)
		}
	}
	return nil
}
