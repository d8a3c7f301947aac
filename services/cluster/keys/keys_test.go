package keys_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dionysia-dev/dionysia/services/cluster/keys"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func hosts(t *testing.T, list ...string) (out []keys.Host) {
	t.Helper()
	for _, s := range list {
		h, err := keys.ParseHost(s)
		if err != nil {
			t.Fatal(err)
		}
		if h.String() != s {
			t.Errorf("%q is read as %q", s, h)
		}
		out = append(out, h)
	}
	return out
}

func mustInit(t *testing.T, dir string, o keys.Options) *keys.Report {
	t.Helper()
	if o.Now.IsZero() {
		o.Now = now
	}
	r, err := keys.Init(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// contents reads all files; it fails when one may be read by others.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %04o, want %04o", path, info.Mode().Perm(), want)
		}
		if d.IsDir() {
			return nil
		}
		b, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		all[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// isSecret says that what is in the file must never change.
func isSecret(name string) bool {
	return !strings.HasSuffix(name, "host.hcl") && !strings.HasSuffix(name, "roles") && name != "cluster.json"
}

func TestInitMakesWhatIsMissingAndKeepsTheRest(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	first := mustInit(t, dir, keys.Options{Hosts: hosts(t, "s1=10.0.0.1,server,redis,api", "w1=10.0.0.4,worker,router", "w2=10.0.0.5,worker")})
	was := contents(t, dir)
	if len(first.Made) != len(was) || first.Kept != 0 || len(first.Changed) != 0 {
		t.Errorf("made %d, changed %v, kept %d of %d files", len(first.Made), first.Changed, first.Kept, len(was))
	}
	t.Run("again", func(t *testing.T) {
		r := mustInit(t, dir, keys.Options{Now: now.Add(time.Hour)})
		if len(r.Made)+len(r.Changed)+len(r.Notes) > 0 || r.Kept != len(was) {
			t.Errorf("made %v, changed %v, kept %d, says %v", r.Made, r.Changed, r.Kept, r.Notes)
		}
		if d := cmp.Diff(was, contents(t, dir)); d != "" {
			t.Error(d)
		}
	})
	t.Run("hosts share nothing but what all need", func(t *testing.T) {
		for _, secret := range []string{"consul.management", "consul.operator", "nomad.token", "cluster.secret", "admin.token", "redis.password", "consul.agent.s1", "consul.nomad.server", "consul.nomad.client.w2", "nomad.gossip"} {
			for name, text := range was {
				if strings.HasPrefix(name, "hosts/w1/") && strings.Contains(text, strings.TrimSpace(was[secret])) {
					t.Errorf("%s has %s", name, secret)
				}
			}
		}
	})
	t.Run("one host more", func(t *testing.T) {
		r := mustInit(t, dir, keys.Options{Hosts: hosts(t, "w3=10.0.0.6,worker")})
		is := contents(t, dir)
		for name, text := range was {
			if isSecret(name) && is[name] != text {
				t.Errorf("%s was written over", name)
			}
		}
		if len(r.Changed) != 1 || len(is) != len(was)+11 {
			t.Errorf("changed %v; %d files after %d", r.Changed, len(is), len(was))
		}
	})
	t.Run("more servers", func(t *testing.T) {
		mustInit(t, dir, keys.Options{Hosts: hosts(t, "s2=10.0.0.2,server", "s3=10.0.0.3,server")})
		is := contents(t, dir)
		for name, text := range was {
			if isSecret(name) && is[name] != text {
				t.Errorf("%s was written over", name)
			}
		}
		if hcl := is["hosts/w1/consul.d/host.hcl"]; !strings.Contains(hcl, `retry_join = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]`) || strings.Contains(hcl, "bootstrap_expect") {
			t.Errorf("w1: %s", hcl)
		}
		if hcl := is["hosts/s1/nomad.d/host.hcl"]; !strings.Contains(hcl, "bootstrap_expect = 3") {
			t.Errorf("s1: %s", hcl)
		}
	})
	t.Run("a host less", func(t *testing.T) {
		r := mustInit(t, dir, keys.Options{Remove: []string{"w2"}})
		if len(r.Notes) != 2 || !strings.HasSuffix(r.Notes[0], ": ingest") || !strings.Contains(r.Notes[1], "hosts/w2") || len(r.Cluster.Hosts) != 5 {
			t.Errorf("says %v, hosts %v", r.Notes, r.Cluster.Hosts)
		}
	})
	t.Run("a token for each Nomad client", func(t *testing.T) {
		is := contents(t, dir)
		for host, secret := range map[string]string{"s1": keys.NomadServer, "w1": keys.NomadClient("w1"), "w3": keys.NomadClient("w3")} {
			if hcl := is["hosts/"+host+"/nomad.d/host.hcl"]; is[secret] == "" || !strings.Contains(hcl, `token = "`+strings.TrimSpace(is[secret])+`"`) {
				t.Errorf("%s has not %s: %s", host, secret, hcl)
			}
		}
		if is[keys.NomadClient("w1")] == is[keys.NomadClient("w3")] || is[keys.NomadClient("s1")] != "" || is[keys.SharedNomadClient] != "" {
			t.Error("clients share a token, or a server has one of its own")
		}
		// An older version's folder.
		if err := os.WriteFile(filepath.Join(dir, keys.SharedNomadClient), []byte("00000000-0000-4000-8000-000000000000"), 0o600); err != nil {
			t.Fatal(err)
		}
		if r := mustInit(t, dir, keys.Options{}); len(r.Notes) != 2 || !strings.Contains(r.Notes[1], "then remove this file") {
			t.Errorf("says %v", r.Notes)
		}
	})
}

// TestInitAfterOneThatWasCutOff removes each file in turn, as if the run had
// ended before it, and leaves what such a run leaves.
func TestInitAfterOneThatWasCutOff(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	o := keys.Options{Hosts: hosts(t, "s1=10.0.0.1,server", "w1=10.0.0.4,worker")}
	mustInit(t, dir, o)
	all := contents(t, dir)
	left := filepath.Join(dir, "hosts", "w1", "consul.d", ".new-123")
	for name := range all {
		if strings.HasSuffix(name, ".ca.key") {
			continue // made before its certificate: without it the folder is damaged
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(left, now.Add(-time.Hour), now.Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
		mustInit(t, dir, o)
		is := contents(t, dir)
		if len(is) != len(all) {
			t.Errorf("without %s: %d files, then %d", name, len(all), len(is))
		}
		for other, text := range all {
			// Certificates follow their key.
			if other != name && isSecret(other) && !strings.HasSuffix(other, ".pem") && is[other] != text {
				t.Errorf("without %s: %s was written over", name, other)
			}
		}
		checkCertificates(t, dir, is)
		all = is
	}
}

func TestBadInputWritesNothing(t *testing.T) {
	for _, c := range []struct{ host, want string }{
		{"w1", "not NAME=IP"},
		{"w1=10.0.0,worker", "host w1: address"},
		{"w1=,worker", "host w1: address"},
		{"w1=0.0.0.0,worker", "host w1: address"},
		{"w1=224.0.0.1,worker", "host w1: address"},
		{"w1=10.0.0.1", "host w1: role: none"},
		{"w1=10.0.0.1,", "host w1: role"},
		{"w1=10.0.0.1,gpu", `host w1: role: there is no "gpu"`},
		{"w1=10.0.0.1,worker,worker", "host w1: role: worker is named twice"},
		{"=10.0.0.1,worker", `host "": name`},
		{"W1=10.0.0.1,worker", `host "W1": name`},
		{"w.1=10.0.0.1,worker", `host "w.1": name`},
		{"../x=10.0.0.1,worker", `host "../x": name`},
		{"-w=10.0.0.1,worker", `host "-w": name`},
		{strings.Repeat("w", 64) + "=10.0.0.1,worker", "name"},
	} {
		if _, err := keys.ParseHost(c.host); !errors.Is(err, keys.ErrInput) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %s", c.host, err, c.want)
		}
	}
	one := hosts(t, "s1=10.0.0.1,server")
	for _, c := range []struct {
		name string
		o    keys.Options
		want string
	}{
		{"nothing", keys.Options{}, "hosts: none"},
		{"no server", keys.Options{Hosts: hosts(t, "w1=10.0.0.4,worker")}, "hosts: none is a server"},
		{"two servers", keys.Options{Hosts: hosts(t, "s1=10.0.0.1,server", "s2=10.0.0.2,server")}, "hosts: 2 servers"},
		{"four servers", keys.Options{Hosts: hosts(t, "a=10.0.0.1,server", "b=10.0.0.2,server", "c=10.0.0.3,server", "d=10.0.0.4,server")}, "survive the loss of 1, as 3"},
		{"one name twice", keys.Options{Hosts: hosts(t, "s1=10.0.0.1,server", "s1=10.0.0.2,worker")}, "host s1: name: given twice"},
		{"one address twice", keys.Options{Hosts: hosts(t, "s1=10.0.0.1,server", "w1=10.0.0.1,worker")}, "host w1: address: 10.0.0.1 is host s1's"},
		{"loopback beside others", keys.Options{Hosts: hosts(t, "s1=10.0.0.1,server", "w1=127.0.0.1,worker")}, "host w1: address: 127.0.0.1 is not one"},
		{"the first on loopback", keys.Options{Hosts: hosts(t, "s1=127.0.0.1,server", "w1=10.0.0.4,worker")}, "host s1: address: 127.0.0.1 is not one"},
		{"redis on two hosts", keys.Options{Hosts: hosts(t, "s1=10.0.0.1,server,redis", "w1=10.0.0.4,redis")}, "host w1: role: redis is on host s1"},
		{"datacenter", keys.Options{Hosts: one, Datacenter: "DC 1"}, "datacenter"},
		{"region", keys.Options{Hosts: one, Region: "eu.west"}, "region"},
		{"etc", keys.Options{Hosts: one, Etc: "etc"}, "etc"},
		{"etc that is no path in HCL", keys.Options{Hosts: one, Etc: `/etc/${x}`}, "etc"},
		{"days", keys.Options{Hosts: one, Days: -1}, "days"},
		{"remove", keys.Options{Hosts: one, Remove: []string{"w9"}}, "remove: there is no host w9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "keys")
			_, err := keys.Init(dir, c.o)
			if !errors.Is(err, keys.ErrInput) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
			if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("something was written: %v", err)
			}
		})
	}
}

func TestAFolderThatIsAnothers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	o := keys.Options{Hosts: hosts(t, "s1=10.0.0.1,server")}
	mustInit(t, dir, o)
	was := contents(t, dir)
	for _, c := range []struct {
		name, file, text string
		want             string
		o                keys.Options
	}{
		{name: "another datacenter", o: keys.Options{Datacenter: "dc2"}, want: "datacenter: it is dc1"},
		{name: "a secret that is none", file: "consul.operator", text: "hello", want: "consul.operator is not a UUID"},
		{name: "an empty one", file: "cluster.secret", text: "", want: "cluster.secret is not"},
		{name: "a key that is none", file: "consul.ca.key", text: "x", want: "consul.ca.key"},
		{name: "another authority's key", file: "consul.ca.key", text: was["nomad.ca.key"], want: "consul.ca.pem is not of the key"},
		{name: "half a cluster.json", file: "cluster.json", text: "{\n", want: "/cluster.json is damaged: line 2: unexpected end of JSON input. Nothing was written. Bring it back from your copy"},
		{name: "an empty one", file: "cluster.json", text: "\n", want: "/cluster.json is damaged: it is empty."},
		{name: "one of nothing", file: "cluster.json", text: "null", want: "/cluster.json is damaged: it lacks a datacenter"},
		{name: "one without hosts", file: "cluster.json", text: `{"datacenter":"dc1","region":"global","etc":"/etc","hosts":[]}`, want: "/cluster.json is damaged: it lacks a datacenter"},
		{name: "another type", file: "cluster.json", text: "{\"datacenter\":\"dc1\",\n\"hosts\":5}", want: "/cluster.json is damaged: line 2: hosts is a number."},
		{name: "no address", file: "cluster.json", text: `{"hosts":[{"name":"s1","ip":"10.0.0"}]}`, want: "/cluster.json is damaged: ParseAddr"},
		{name: "two servers", file: "cluster.json", text: strings.Replace(was["cluster.json"], `"hosts": [`, `"hosts": [{"name":"s2","ip":"10.0.0.2","server":true},`, 1),
			want: "/cluster.json is damaged: hosts: 2 servers"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.file != "" {
				if err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.text), 0o600); err != nil {
					t.Fatal(err)
				}
				defer func() { _ = os.WriteFile(filepath.Join(dir, c.file), []byte(was[c.file]), 0o600) }()
			}
			c.o.Now = now
			before := contents(t, dir)
			if _, err := keys.Init(dir, c.o); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
			if d := cmp.Diff(before, contents(t, dir)); d != "" {
				t.Error(d)
			}
			if c.file == "cluster.json" {
				if _, err := keys.Open(dir); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("opened: %v, want %s", err, c.want)
				}
			}
		})
	}
	if d := cmp.Diff(was, contents(t, dir)); d != "" {
		t.Error(d)
	}
	if err := os.Rename(filepath.Join(dir, "nomad.ca.key"), filepath.Join(t.TempDir(), "key")); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Init(dir, keys.Options{Now: now}); err == nil || !strings.Contains(err.Error(), "nomad.ca.key, is not") {
		t.Errorf("an authority whose key is lost: %v", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Init(dir, o); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("a folder that all may read: %v", err)
	}
}

// A cluster.json that is lost without a copy is made again, beside the keys that are
// there, from what the operator says of the cluster.
func TestClusterThatIsSaidAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	o := keys.Options{Datacenter: "ams1", Region: "eu", Hosts: hosts(t, "s1=10.0.0.1,server", "w1=10.0.0.4,worker")}
	mustInit(t, dir, o)
	was := contents(t, dir)
	if err := os.Rename(filepath.Join(dir, "cluster.json"), filepath.Join(t.TempDir(), "away")); err != nil {
		t.Fatal(err)
	}
	mustInit(t, dir, o)
	if d := cmp.Diff(was, contents(t, dir)); d != "" {
		t.Error(d)
	}
}

func TestOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	if _, err := keys.Open(dir); !errors.Is(err, keys.ErrInput) {
		t.Errorf("none there: %v", err)
	}
	mustInit(t, dir, keys.Options{Hosts: hosts(t, "s1=10.0.0.1,server")})
	f, err := keys.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := f.Secret("nomad.token"); err != nil || len(s) != 36 {
		t.Errorf("nomad.token is %q, %v", s, err)
	}
	if _, err := f.Secret("none"); err == nil || !strings.Contains(err.Error(), "cluster init") {
		t.Errorf("a secret that is not there: %v", err)
	}
	if fmt.Sprint(f.Servers()) != "[s1=10.0.0.1,server]" {
		t.Errorf("servers %v", f.Servers())
	}
}
