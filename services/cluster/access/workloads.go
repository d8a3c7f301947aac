package access

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/consul/api"
)

// method is the auth method's name in nomad/agent/*.hcl.
const method = "nomad-workloads"

// authMethod has Consul take Nomad's word for what a task or a service is: Consul
// fetches Nomad's public keys, and a login gives the service's own identity, or the
// role that is named like the job.
func (a *applier) authMethod(ctx context.Context) error {
	want, err := a.method()
	if err == nil {
		err = a.putAuthMethod(ctx, want)
	}
	if err != nil {
		return fmt.Errorf("consul auth method %s: %w", method, err)
	}
	return nil
}

func (a *applier) method() (*api.ACLAuthMethod, error) {
	config := map[string]any{
		"JWKSURL":          a.JWKS,
		"JWTSupportedAlgs": []string{"RS256"},
		"BoundAudiences":   []string{"consul.io"},
		"ClaimMappings": map[string]string{
			"nomad_namespace": "nomad_namespace",
			"nomad_job_id":    "nomad_job_id",
			"nomad_task":      "nomad_task",
			"nomad_service":   "nomad_service",
		},
	}
	if a.JWKS == "" {
		config["JWKSURL"] = "http://127.0.0.1:4646/.well-known/jwks.json"
		if a.Keys.HTTPS {
			config["JWKSURL"] = "https://127.0.0.1:4646/.well-known/jwks.json"
		}
	}
	if a.Keys.HTTPS {
		ca, err := os.ReadFile(filepath.Join(a.Keys.Dir, "nomad.ca.pem"))
		if err != nil {
			return nil, err
		}
		config["JWKSCACert"] = string(ca)
	}
	return &api.ACLAuthMethod{Name: method, Type: "jwt", Description: "Nomad's workloads", Config: config}, nil
}

func (a *applier) putAuthMethod(ctx context.Context, want *api.ACLAuthMethod) error {
	is, _, err := a.consul.ACL().AuthMethodRead(method, a.read(ctx))
	switch {
	case err != nil:
		return err
	case is == nil:
		_, _, err = a.consul.ACL().AuthMethodCreate(want, a.write(ctx))
		a.made(err, "Consul auth method", method)
	case !sameConfig(is.Config, want.Config) || is.Description != want.Description:
		_, _, err = a.consul.ACL().AuthMethodUpdate(want, a.write(ctx))
		a.changed(err, "Consul auth method", method)
	default:
		a.Kept++
	}
	return err
}

// sameConfig compares as JSON, which is how one of the two came.
func sameConfig(is, want map[string]any) bool {
	for name := range want {
		x, err := json.Marshal(is[name])
		y, err2 := json.Marshal(want[name])
		if err != nil || err2 != nil || !bytes.Equal(x, y) {
			return false
		}
	}
	_, was := is["JWKSCACert"]
	_, shall := want["JWKSCACert"]
	return was == shall
}

func (a *applier) bindingRules(ctx context.Context) error {
	rules, _, err := a.consul.ACL().BindingRuleList(method, a.read(ctx))
	if err != nil {
		return fmt.Errorf("listing Consul's binding rules: %w", err)
	}
	for _, want := range []*api.ACLBindingRule{
		{Description: "services that Nomad registers", BindType: api.BindingRuleBindTypeService,
			BindName: "${value.nomad_service}", Selector: `"nomad_service" in value`},
		// A job of that name in another namespace is somebody else's.
		{Description: "tasks, by their job", BindType: api.BindingRuleBindTypeRole,
			BindName: prefix + "${value.nomad_job_id}", Selector: `"nomad_service" not in value and value.nomad_namespace == "` + namespace + `"`},
	} {
		want.AuthMethod = method
		if err := a.bindingRule(ctx, rules, want); err != nil {
			return fmt.Errorf("consul binding rule %q: %w", want.Description, err)
		}
	}
	return nil
}

func (a *applier) bindingRule(ctx context.Context, rules []*api.ACLBindingRule, want *api.ACLBindingRule) error {
	for _, is := range rules {
		if is.Description != want.Description {
			continue
		}
		if is.BindType == want.BindType && is.BindName == want.BindName && is.Selector == want.Selector {
			a.Kept++
			return nil
		}
		want.ID = is.ID
		_, _, err := a.consul.ACL().BindingRuleUpdate(want, a.write(ctx))
		a.changed(err, "Consul binding rule for", want.Description)
		return err
	}
	_, _, err := a.consul.ACL().BindingRuleCreate(want, a.write(ctx))
	a.made(err, "Consul binding rule for", want.Description)
	return err
}
