package discovery

import (
	"errors"
	"fmt"
	"net"
	"strconv"
)

// ErrNoAddress says that an address is every interface's: others can't be told it.
var ErrNoAddress = errors.New("it names every interface; the address at which others reach it is needed")

// Advertised returns the address that others reach listen at: advertise when
// it is set, otherwise listen's own when it names a host, else ErrNoAddress.
// Both are host:port.
func Advertised(listen, advertise string) (host string, port int, err error) {
	addr := listen
	if advertise != "" {
		addr = advertise
	}
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("address %q: %w", addr, err)
	}
	if port, err = strconv.Atoi(p); err != nil || port < 1 || port > 65535 {
		return "", 0, fmt.Errorf("address %q: a port is 1 to 65535", addr)
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		return "", 0, fmt.Errorf("address %q: %w", addr, ErrNoAddress)
	}
	return host, port, nil
}
