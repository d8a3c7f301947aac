// Package access applies a cluster's access control to Consul and Nomad, by the
// keys in a folder that package keys has made: policies, roles, tokens, how
// Nomad's workloads reach Consul, and the jobs' secrets.
//
// Each step looks first and writes only what differs, so Apply may be run again:
// after a run that was cut off, with more hosts, with a newer program.
package access

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	consulapi "github.com/hashicorp/consul/api"
	nomadapi "github.com/hashicorp/nomad/api"

	"github.com/dionysia-dev/dionysia/services/cluster/keys"
)

// Options say where Consul and Nomad are. What is empty comes from their own
// environment variables (CONSUL_HTTP_ADDR, NOMAD_ADDR, …), else from the folder: a
// server's address if the cluster has HTTPS, and loopback otherwise.
type Options struct {
	Keys   *keys.Folder
	Consul string // host:port or URL
	Nomad  string // URL
	// JWKS is where Consul's servers fetch Nomad's public keys: a Nomad on their own
	// host unless given.
	JWKS string
	// Timeout bounds each wait for Consul or Nomad.
	Timeout time.Duration
	// Say is told what is waited for.
	Say func(string)
}

// Report says what Apply did.
type Report struct {
	Made, Changed, Removed []string
	Kept                   int
}

// ErrOtherToken says that Consul or Nomad knows another management token than the
// folder's.
var ErrOtherToken = errors.New("another management token is in force")

// retryEvery is how often what is waited for is tried.
const retryEvery = 300 * time.Millisecond

// requestTimeout bounds one request.
const requestTimeout = 15 * time.Second

type applier struct {
	Options
	Report
	consul *consulapi.Client
	nomad  *nomadapi.Client
}

// Apply brings Consul's and Nomad's access control to what the folder and this
// program say. The report is also there with an error: what was done by then.
func Apply(ctx context.Context, o Options) (*Report, error) {
	a := &applier{Options: o}
	var err error
	if a.consul, err = a.consulClient(); err != nil {
		return &a.Report, err
	}
	if a.nomad, err = a.nomadClient(); err != nil {
		return &a.Report, err
	}
	for _, step := range []struct {
		what string
		run  func(context.Context) error
	}{
		{"Consul at " + a.Consul, a.consulLeads},
		{"Consul's management token", a.bootstrapConsul},
		{"Consul's policies", a.consulPolicies},
		{"Consul's roles", a.consulRoles},
		{"Consul's tokens", a.consulTokens},
		{"Nomad at " + a.Nomad, a.nomadLeads},
		{"Nomad's management token", a.bootstrapNomad},
		{"Nomad's policies", a.nomadPolicies},
		{"Nomad's variables", a.nomadVariables},
		// Consul tries the address of Nomad's keys when the method is written.
		{"Consul's servers to reach Nomad's keys", a.authMethod},
		{"Consul's binding rules", a.bindingRules},
	} {
		if err := a.await(ctx, step.what, step.run); err != nil {
			return &a.Report, err
		}
	}
	return &a.Report, nil
}

// made notes what a write has made, unless it failed.
func (a *applier) made(err error, what, name string) {
	if err == nil {
		a.Made = append(a.Made, what+" "+name)
	}
}

// changed notes what a write has changed, unless it failed.
func (a *applier) changed(err error, what, name string) {
	if err == nil {
		a.Changed = append(a.Changed, what+" "+name)
	}
}

// final is an error that waiting does not mend.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// lasting says that waiting does not mend it: the request was refused. While
// servers elect a leader or make their first keys, they answer 500.
func lasting(err error) bool {
	var f final
	return errors.As(err, &f) || status(err)/100 == 4
}

// status is the HTTP status of an answer that is an error, 0 for what is none.
func status(err error) int {
	var consul consulapi.StatusError
	var nomad nomadapi.UnexpectedResponseError
	switch {
	case errors.As(err, &consul):
		return consul.Code
	case errors.As(err, &nomad):
		return nomad.StatusCode()
	}
	return 0
}

// await tries until it succeeds, fails for good, or the time is up. It says what it
// waits for when the first try fails, and why when that changes.
func (a *applier) await(ctx context.Context, what string, try func(context.Context) error) error {
	limit, cancel := context.WithTimeout(ctx, a.Timeout)
	defer cancel()
	said, kept := "", a.Kept
	for {
		a.Kept = kept
		err := try(limit)
		switch {
		case err == nil:
			return nil
		case lasting(err):
			return err
		case limit.Err() == nil && err.Error() != said:
			said = err.Error()
			a.Say(fmt.Sprintf("waiting for %s: %s", what, said))
		}
		select {
		case <-limit.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("waited %v for %s: %w", a.Timeout, what, err)
		case <-time.After(retryEvery):
		}
	}
}

func (a *applier) consulClient() (*consulapi.Client, error) {
	token, err := a.Keys.Secret("consul.management")
	if err != nil {
		return nil, err
	}
	conf := consulapi.DefaultConfig()
	switch {
	case a.Consul != "":
		conf.Address = a.Consul
	case os.Getenv(consulapi.HTTPAddrEnvName) == "" && a.Keys.HTTPS:
		conf.Address = "https://" + net.JoinHostPort(a.Keys.Servers()[0].IP.String(), "8501")
	}
	// Consul's client speaks TLS to any address once CONSUL_HTTP_SSL asks for it.
	if conf.Scheme != "https" {
		if err := private("Consul", "--consul", "CONSUL_HTTP_ADDR", conf.Address); err != nil {
			return nil, err
		}
	}
	conf.Token, conf.TokenFile = token, ""
	if conf.TLSConfig.CAFile == "" && conf.TLSConfig.CAPath == "" {
		conf.TLSConfig.CAFile = filepath.Join(a.Keys.Dir, "consul.ca.pem")
	}
	if conf.HttpClient, err = consulapi.NewHttpClient(conf.Transport, conf.TLSConfig); err != nil {
		return nil, fmt.Errorf("consul at %s: %w", conf.Address, err)
	}
	conf.HttpClient.Timeout = requestTimeout
	a.Consul = conf.Address
	c, err := consulapi.NewClient(conf)
	if err != nil {
		return nil, fmt.Errorf("consul at %s: %w", conf.Address, err)
	}
	return c, nil
}

func (a *applier) nomadClient() (*nomadapi.Client, error) {
	token, err := a.Keys.Secret("nomad.token")
	if err != nil {
		return nil, err
	}
	conf := nomadapi.DefaultConfig()
	switch {
	case a.Nomad != "":
		conf.Address = a.Nomad
	case os.Getenv("NOMAD_ADDR") == "" && a.Keys.HTTPS:
		conf.Address = "https://" + net.JoinHostPort(a.Keys.Servers()[0].IP.String(), "4646")
	}
	if err := private("Nomad", "--nomad", "NOMAD_ADDR", conf.Address); err != nil {
		return nil, err
	}
	conf.SecretID = token
	if conf.TLSConfig.CACert == "" && conf.TLSConfig.CAPath == "" {
		conf.TLSConfig.CACert = filepath.Join(a.Keys.Dir, "nomad.ca.pem")
	}
	a.Nomad = conf.Address
	c, err := nomadapi.NewClient(conf)
	if err != nil {
		return nil, fmt.Errorf("nomad at %s: %w", conf.Address, err)
	}
	return c, nil
}
