package access_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	consulapi "github.com/hashicorp/consul/api"
)

// logins shows what rights Consul gives for what Nomad signs. The rules are those of
// bootstrap, bound to a second auth method, whose key the test has.
func (a *agents) logins(t *testing.T) {
	acl := a.consul(t, 1, a.secret(t, "consul.management")).ACL()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	const method = "test"
	real, _, err := acl.AuthMethodRead("nomad-workloads", nil)
	if err != nil {
		t.Fatal(err)
	}
	config := real.Config
	for _, name := range []string{"JWKSURL", "JWKSCACert"} {
		delete(config, name)
	}
	config["JWTValidationPubKeys"] = []string{string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))}
	if _, _, err := acl.AuthMethodCreate(&consulapi.ACLAuthMethod{Name: method, Type: "jwt", Config: config}, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := acl.AuthMethodDelete(method, nil); err != nil { // its rules and tokens go with it
			t.Error(err)
		}
	})
	rules, _, err := acl.BindingRuleList("nomad-workloads", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		r.ID, r.AuthMethod = "", method
		if _, _, err := acl.BindingRuleCreate(r, nil); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		claims jwt.MapClaims
		roles  []string // none: it is refused
	}{
		"the worker":                    {jwt.MapClaims{"nomad_namespace": "default", "nomad_job_id": "worker", "nomad_task": "worker"}, []string{"dionysia-worker"}},
		"a worker of somebody else":     {jwt.MapClaims{"nomad_namespace": "other", "nomad_job_id": "worker", "nomad_task": "worker"}, nil},
		"a job that has no role":        {jwt.MapClaims{"nomad_namespace": "default", "nomad_job_id": "batch", "nomad_task": "x"}, nil},
		"a job named as another policy": {jwt.MapClaims{"nomad_namespace": "default", "nomad_job_id": "nomad-server", "nomad_task": "x"}, nil},
	} {
		tc.claims["aud"], tc.claims["exp"], tc.claims["iat"] = "consul.io", time.Now().Add(time.Hour).Unix(), time.Now().Unix()
		bearer, err := jwt.NewWithClaims(jwt.SigningMethodRS256, tc.claims).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		token, _, err := a.consul(t, 1, "").ACL().Login(&consulapi.ACLLoginParams{AuthMethod: method, BearerToken: bearer}, nil)
		if err != nil {
			if len(tc.roles) > 0 {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		var got []string
		for _, r := range token.Roles {
			got = append(got, r.Name)
		}
		if !slices.Equal(got, tc.roles) || len(token.ServiceIdentities)+len(token.Policies) > 0 {
			t.Errorf("%s: the roles %q, want %q; %+v", name, got, tc.roles, token)
		}
	}
}
