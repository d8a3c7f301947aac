package keys_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dionysia-dev/dionysia/services/cluster/keys"
)

func checkCertificates(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name := range files {
		if !strings.HasSuffix(name, "/agent.pem") {
			continue
		}
		at := filepath.Join(dir, filepath.Dir(name))
		if _, err := tls.LoadX509KeyPair(filepath.Join(at, "agent.pem"), filepath.Join(at, "agent-key.pem")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := verify(t, at, "localhost", now); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// verify verifies the certificate in a host's folder by the authority there.
func verify(t *testing.T, dir, name string, at time.Time) (*x509.Certificate, error) {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	b, err := os.ReadFile(filepath.Join(dir, "agent.pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := cert.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			return cert, err
		}
	}
	return cert, nil
}

func TestCertificates(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	mustInit(t, dir, keys.Options{Datacenter: "ams1", Region: "europe", Hosts: hosts(t, "s1=10.0.0.1,server", "w1=10.0.0.4,worker", "v6=2001:db8::1,edge")})
	for _, c := range []struct {
		host, name string
		good       bool
	}{
		{"s1/consul.d", "server.ams1.consul", true},
		{"s1/consul.d", "10.0.0.1", true},
		{"s1/consul.d", "127.0.0.1", true},
		{"s1/consul.d", "localhost", true},
		{"s1/consul.d", "server.dc1.consul", false},
		{"s1/consul.d", "server.europe.nomad", false},
		{"s1/nomad.d", "server.europe.nomad", true},
		{"s1/nomad.d", "10.0.0.1", true},
		{"w1/consul.d", "client.ams1.consul", true},
		{"w1/consul.d", "server.ams1.consul", false},
		{"w1/nomad.d", "client.europe.nomad", true},
		{"w1/nomad.d", "server.europe.nomad", false},
		{"w1/nomad.d", "10.0.0.1", false},
		{"v6/nomad.d", "2001:db8::1", true},
	} {
		cert, err := verify(t, filepath.Join(dir, "hosts", c.host), c.name, now)
		if (err == nil) != c.good {
			t.Errorf("%s for %s: %v", c.host, c.name, err)
		}
		if d := cert.NotAfter.Sub(now); d != keys.DefaultDays*24*time.Hour {
			t.Errorf("%s is good for %v", c.host, d)
		}
	}
	// The other program's authority is no authority.
	at := filepath.Join(dir, "hosts", "s1")
	if err := os.Rename(filepath.Join(at, "nomad.d", "ca.pem"), filepath.Join(at, "consul.d", "ca.pem")); err != nil {
		t.Fatal(err)
	}
	if _, err := verify(t, filepath.Join(at, "consul.d"), "localhost", now); err == nil {
		t.Error("Nomad's authority is good for Consul")
	}
}

func TestRenewal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	mustInit(t, dir, keys.Options{Hosts: hosts(t, "s1=10.0.0.1,server,worker")})
	was := contents(t, dir)
	at := filepath.Join(dir, "hosts", "s1", "consul.d")

	late := now.AddDate(0, 0, 340)
	if r := mustInit(t, dir, keys.Options{Now: late}); len(r.Changed) != 0 || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "--renew") {
		t.Errorf("25 days before the end: changed %v, says %v", r.Changed, r.Notes)
	}
	r := mustInit(t, dir, keys.Options{Now: late, Renew: true, Days: 30})
	if d := cmp.Diff([]string{"hosts/s1/consul.d/agent.pem", "hosts/s1/nomad.d/agent.pem"}, r.Changed); d != "" || len(r.Made) > 0 {
		t.Errorf("renewing made %v, changed %s", r.Made, d)
	}
	if cert, err := verify(t, at, "server.dc1.consul", late.AddDate(0, 0, 29)); err != nil || !cert.NotAfter.Equal(late.AddDate(0, 0, 30)) {
		t.Errorf("renewed: %v", err)
	}
	// One that has ended is renewed unasked.
	if r := mustInit(t, dir, keys.Options{Now: late.AddDate(0, 0, 31)}); len(r.Changed) != 2 {
		t.Errorf("after its end: changed %v", r.Changed)
	}
	// A host at another address, the same key.
	mustInit(t, dir, keys.Options{Now: late, Hosts: hosts(t, "s1=10.0.0.9,server,worker")})
	if _, err := verify(t, at, "10.0.0.9", late.Add(time.Hour)); err != nil {
		t.Error(err)
	}
	// An authority is renewed before what it signs would outlive it, for the same key: the old one's certificates stay good.
	end := now.AddDate(0, 0, 3649)
	mustInit(t, dir, keys.Options{Now: end.AddDate(0, 0, -10), Renew: true, Days: 5})
	old, err := os.ReadFile(filepath.Join(at, "agent.pem"))
	if err != nil {
		t.Fatal(err)
	}
	mustInit(t, dir, keys.Options{Now: end.AddDate(0, 0, -9)})
	is := contents(t, dir)
	if is["consul.ca.pem"] == was["consul.ca.pem"] || is["consul.ca.key"] != was["consul.ca.key"] || is["hosts/s1/consul.d/ca.pem"] != is["consul.ca.pem"] {
		t.Error("the authority was not renewed")
	}
	if string(old) != is["hosts/s1/consul.d/agent.pem"] {
		t.Error("a good certificate was renewed with its authority")
	}
	if _, err := verify(t, at, "server.dc1.consul", end.AddDate(0, 0, -8)); err != nil {
		t.Errorf("of the renewed authority: %v", err)
	}
}
