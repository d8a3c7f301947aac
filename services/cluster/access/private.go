package access

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// ErrInClear says that a management token would go over a network unencrypted.
var ErrInClear = errors.New("the management token would go there in clear")

// private refuses an address where whoever listens on the way would read what is
// sent: one that is neither HTTPS, nor a socket, nor loopback.
func private(program, flag, variable, address string) error {
	scheme, rest, ok := strings.Cut(address, "://")
	switch {
	case !ok:
		rest = address
	case scheme == "https" || scheme == "unix":
		return nil
	}
	u, err := url.Parse("http://" + rest)
	if err != nil {
		return fmt.Errorf("%s (%s): %q is no address: %w", flag, variable, address, err)
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if u.User == nil && (u.Hostname() == "localhost" || err == nil && ip.Unmap().IsLoopback()) {
		return nil
	}
	return fmt.Errorf("%s (%s): %s at %s: %w: name an https:// address, or reach a server by ssh -L and name 127.0.0.1", flag, variable, program, address, ErrInClear)
}
