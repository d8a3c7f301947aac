package keys_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dionysia-dev/dionysia/services/cluster/keys"
)

func TestServersThatLeave(t *testing.T) {
	five := []string{"s1=10.0.0.1,server", "s2=10.0.0.2,server", "s3=10.0.0.3,server", "s4=10.0.0.4,server", "s5=10.0.0.5,server", "w1=10.0.0.9,worker"}
	for _, c := range []struct {
		name    string
		o       keys.Options
		want    string // of the note; "" for none
		refused string
	}{
		{name: "two servers", o: keys.Options{Remove: []string{"s4", "s5"}}, want: "servers s4, s5 have to leave"},
		{name: "four", o: keys.Options{Remove: []string{"s1", "s2", "s4", "s5"}}, want: "servers s1, s2, s4, s5 have to leave"},
		{name: "one for another", o: keys.Options{Remove: []string{"s1"}, Hosts: hosts(t, "s6=10.0.0.6,server")}, want: "server s1 has to leave"},
		{name: "servers that become workers", o: keys.Options{Hosts: hosts(t, "s1=10.0.0.1,worker", "s2=10.0.0.2,worker")}, want: "servers s1, s2 have to leave"},
		{name: "a worker", o: keys.Options{Remove: []string{"w1"}}},
		{name: "another role of a server", o: keys.Options{Hosts: hosts(t, "s1=10.0.0.1,server,redis")}},
		{name: "nothing"},
		{name: "all of them", o: keys.Options{Remove: []string{"s1", "s2", "s3", "s4", "s5"}, Hosts: hosts(t, "s6=10.0.0.6,server")},
			refused: "no server that is there now would stay (s1, s2, s3, s4, s5)"},
		{name: "all become workers", o: keys.Options{Remove: []string{"s4", "s5"},
			Hosts: hosts(t, "s1=10.0.0.1,worker", "s2=10.0.0.2,worker", "s3=10.0.0.3,worker", "s6=10.0.0.6,server")}, refused: "would stay (s1, s2, s3, s4, s5)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "keys")
			for _, note := range mustInit(t, dir, keys.Options{Hosts: hosts(t, five...)}).Notes {
				if strings.Contains(note, "leave") {
					t.Errorf("a new cluster: %s", note)
				}
			}
			was := contents(t, dir)
			c.o.Now = now
			r, err := keys.Init(dir, c.o)
			if c.refused != "" {
				if !errors.Is(err, keys.ErrInput) || !strings.Contains(err.Error(), c.refused) {
					t.Errorf("%v, want %s", err, c.refused)
				}
				if d := cmp.Diff(was, contents(t, dir)); d != "" {
					t.Error(d)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			said := ""
			for _, note := range r.Notes {
				if strings.Contains(note, "to leave Consul and Nomad") {
					said += note
				}
			}
			if (said == "") != (c.want == "") || !strings.HasPrefix(said, c.want) {
				t.Errorf("%q, want %q", said, c.want)
			}
			for _, part := range []string{"one at a time", "nomad operator raft remove-peer", "systemctl stop nomad", "consul leave"} {
				if c.want != "" && !strings.Contains(said, part) {
					t.Errorf("%q lacks %q", said, part)
				}
			}
		})
	}
}
