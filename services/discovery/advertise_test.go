package discovery

import (
	"errors"
	"testing"
)

func TestAdvertised(t *testing.T) {
	for _, c := range []struct {
		listen, advertise string
		host              string
		port              int
		err               error // any, when it is errAny
	}{
		{"10.0.0.1:80", "", "10.0.0.1", 80, nil},
		{"[fd00::1]:80", "", "fd00::1", 80, nil},
		{"host:80", "", "host", 80, nil},
		{":80", "", "", 0, ErrNoAddress},
		{"0.0.0.0:80", "", "", 0, ErrNoAddress},
		{"[::]:80", "", "", 0, ErrNoAddress},
		{":80", "10.0.0.1:81", "10.0.0.1", 81, nil},
		{":80", "0.0.0.0:81", "", 0, ErrNoAddress},
		{":80", "10.0.0.1", "", 0, errAny},
		{"10.0.0.1:80", "10.0.0.2:0", "", 0, errAny},
		{"10.0.0.1:http", "", "", 0, errAny},
		{"10.0.0.1:65536", "", "", 0, errAny},
	} {
		host, port, err := Advertised(c.listen, c.advertise)
		ok := errors.Is(err, c.err) || err != nil && errors.Is(c.err, errAny)
		if host != c.host || port != c.port || !ok {
			t.Errorf("%q, %q: %q %d %v", c.listen, c.advertise, host, port, err)
		}
	}
}

var errAny = errors.New("any")
