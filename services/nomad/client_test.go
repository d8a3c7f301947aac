package nomad

import (
	"strings"
	"testing"
)

func TestCheckAddr(t *testing.T) {
	for addr, good := range map[string]bool{
		"http://127.0.0.1:4646": true, "https://nomad.example.org": true, "http://[::1]:4646/": true, "unix:///secrets/api.sock": true,
		"127.0.0.1:4646": false, "nomad:4646": false, "nomad": false, "": false, "http://": false, "unix://": false, "tcp://127.0.0.1:4646": false, "http://a b": false,
	} {
		err := CheckAddr(addr)
		if (err == nil) != good {
			t.Errorf("%q: %v", addr, err)
		}
		if err != nil && !strings.Contains(err.Error(), "is not a URL such as http://127.0.0.1:4646") {
			t.Errorf("%q: %v", addr, err)
		}
		if good {
			if _, err := NewClient(Options{Addr: addr}); err != nil {
				t.Errorf("%q: %v", addr, err)
			}
		}
	}
}
