package access

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/dionysia-dev/dionysia/nomad"
)

// namespace is the one that Dionysia's jobs run in.
const namespace = api.DefaultNamespace

func (a *applier) nomadLeads(ctx context.Context) error {
	var leader string
	_, err := a.nomad.Raw().Query("/v1/status/leader", &leader, (&api.QueryOptions{}).WithContext(ctx))
	if err == nil && leader == "" {
		err = errors.New("its servers have no leader yet")
	}
	return err
}

// bootstrapNomad gives Nomad its management token, unless it knows it.
func (a *applier) bootstrapNomad(ctx context.Context) error {
	token, err := a.Keys.Secret("nomad.token")
	if err != nil {
		return final{err}
	}
	_, _, err = a.nomad.ACLTokens().Self((&api.QueryOptions{}).WithContext(ctx))
	switch {
	case err == nil:
		a.Kept++
		return nil
	case strings.Contains(err.Error(), "ACL support disabled"):
		return final{fmt.Errorf("nomad at %s has no access control: nomad/agent/server.hcl turns it on", a.Nomad)}
	case status(err) != http.StatusForbidden && !strings.Contains(err.Error(), "ACL token not found"):
		return err
	}
	_, _, err = a.nomad.ACLTokens().BootstrapOpts(token, (&api.WriteOptions{}).WithContext(ctx))
	if err != nil && strings.Contains(err.Error(), "bootstrap already done") {
		return final{fmt.Errorf("%w in Nomad: put it into %s/nomad.token, or let it be set again (nomad acl bootstrap says how): %w", ErrOtherToken, a.Keys.Dir, err)}
	}
	a.made(err, "Nomad's", "management token")
	return err
}

// nomadPolicies gives jobs' own identities what they may do in Nomad, beside
// reading their variables.
func (a *applier) nomadPolicies(ctx context.Context) error {
	policies, err := rules(nomad.Policies)
	if err != nil {
		return err
	}
	for _, job := range sorted(policies) {
		want := &api.ACLPolicy{Name: prefix + job, Description: "the job " + job, Rules: policies[job],
			JobACL: &api.JobACL{Namespace: namespace, JobID: job}}
		is, _, err := a.nomad.ACLPolicies().Info(want.Name, (&api.QueryOptions{}).WithContext(ctx))
		note := a.changed
		switch {
		case err == nil && is.Rules == want.Rules && is.JobACL != nil && *is.JobACL == *want.JobACL:
			a.Kept++
			continue
		case err == nil:
		case status(err) == http.StatusNotFound:
			note = a.made
		default:
			return fmt.Errorf("nomad policy %s: %w", want.Name, err)
		}
		_, err = a.nomad.ACLPolicies().Upsert(want, (&api.WriteOptions{}).WithContext(ctx))
		if note(err, "Nomad policy", want.Name); err != nil {
			return fmt.Errorf("nomad policy %s: %w", want.Name, err)
		}
	}
	return nil
}

// nomadVariables gives each job the secrets that it needs and no others. What
// an operator has added to a job's variables stays.
func (a *applier) nomadVariables(ctx context.Context) error {
	secrets := map[string]string{}
	for item, name := range map[string]string{"secret": "cluster.secret", "admin_token": "admin.token", "redis_password": "redis.password"} {
		value, err := a.Keys.Secret(name)
		if err != nil {
			return err
		}
		secrets[item] = value
	}
	jobs := map[string][]string{
		"redis":  {"redis_password"},
		"api":    {"secret", "admin_token", "redis_password"},
		"ingest": {"secret"},
		"router": {"secret", "redis_password"},
		"worker": {"secret", "redis_password"},
	}
	for _, job := range sorted(jobs) {
		want := api.VariableItems{}
		for _, item := range jobs[job] {
			want[item] = secrets[item]
		}
		if err := a.nomadVariable(ctx, "nomad/jobs/"+job, want); err != nil {
			return fmt.Errorf("nomad variables %s: %w", "nomad/jobs/"+job, err)
		}
	}
	return nil
}

func (a *applier) nomadVariable(ctx context.Context, path string, want api.VariableItems) error {
	v := &api.Variable{Namespace: namespace, Path: path, Items: want}
	is, _, err := a.nomad.Variables().Read(path, (&api.QueryOptions{Namespace: namespace}).WithContext(ctx))
	note := a.changed
	switch {
	case errors.Is(err, api.ErrVariablePathNotFound):
		note = a.made
	case err != nil:
		return err
	default:
		v.Items = maps.Clone(is.Items)
		maps.Copy(v.Items, want)
		if maps.Equal(v.Items, is.Items) {
			a.Kept++
			return nil
		}
		v.ModifyIndex = is.ModifyIndex
	}
	// Checked: what somebody has written since is not lost.
	_, _, err = a.nomad.Variables().CheckedUpdate(v, (&api.WriteOptions{Namespace: namespace}).WithContext(ctx))
	note(err, "Nomad variables", path)
	return err
}
