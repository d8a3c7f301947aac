package scaler

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	api "github.com/hashicorp/nomad/api"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/nomad"
	"github.com/dionysia-dev/dionysia/services/scaling"
)

// burner is a task that is busy while a file is there, and nearly idle otherwise.
const burner = `while :; do
  if [ -e %s ]; then i=0; while [ $i -lt 10000 ]; do i=$((i+1)); done; sleep 0.05; else sleep 1; fi
done`

// burnJob is a service that is rolled out as nomad/jobs/router.nomad.hcl is, with 50 MHz
// reserved for each instance: three get as much when thirty others want the machine too,
// and what they do while they are nearly idle is far less.
func burnJob(id, file string, lowest, most int64) *api.Job {
	task := api.NewTask("burn", "raw_exec").SetConfig("command", "/bin/sh").SetConfig("args", []string{"-c", fmt.Sprintf(burner, file)}).
		Require(&api.Resources{CPU: ptr(50), MemoryMB: ptr(32)})
	group := api.NewTaskGroup("burn", 1).AddTask(task)
	group.Scaling = &api.ScalingPolicy{Enabled: ptr(true), Min: &lowest, Max: &most}
	group.Update = &api.UpdateStrategy{Canary: ptr(1), AutoPromote: ptr(true), AutoRevert: ptr(true), MaxParallel: ptr(1), HealthCheck: ptr("task_states"),
		MinHealthyTime: ptr(100 * time.Millisecond), HealthyDeadline: ptr(30 * time.Second), ProgressDeadline: ptr(time.Minute)}
	return api.NewServiceJob(id, id, "global", 50).AddDatacenter("*").AddTaskGroup(group)
}

// restricted is a token that may do what nomad/policies/api.hcl says.
func restricted(t *testing.T, n *api.Client) string {
	t.Helper()
	rules, err := os.ReadFile("../../../nomad/policies/api.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.ACLPolicies().Upsert(&api.ACLPolicy{Name: "api", Rules: string(rules)}, nil); err != nil {
		t.Fatal(err)
	}
	token, _, err := n.ACLTokens().Create(&api.ACLToken{Name: "api", Type: "client", Policies: []string{"api"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return token.SecretID
}

// TestRealNomad: a job that burns CPU gets more instances, up to its bound and never
// past it, and loses them when it is idle; all with no more rights than the policy
// in nomad/policies gives, and in spite of a job that is not there.
func TestRealNomad(t *testing.T) {
	server, management := testkit.StartNomadWithACL(t)
	admin, err := api.NewClient(&api.Config{Address: server.Addr, SecretID: management})
	if err != nil {
		t.Fatal(err)
	}
	token := restricted(t, admin)
	file := filepath.Join(t.TempDir(), "busy")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := admin.Jobs().Register(burnJob("burn", file, 1, 3), nil); err != nil {
		t.Fatal(err)
	}
	c, err := nomad.NewClient(nomad.Options{Addr: server.Addr, Token: func() (string, error) { return token, nil }})
	if err != nil {
		t.Fatal(err)
	}
	m, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	log := &logs{t: t}
	s := New(c, []string{"nothing", "burn"}, scaling.Policy{Target: 0.6, OutAfter: time.Second, InAfter: 2 * time.Second, Cooldown: time.Second},
		hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Trace}), m)
	s.interval = 250 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Lead(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		if t.Failed() {
			log.show()
		}
	})

	events := func() (list []api.ScalingEvent, running int) {
		status, _, err := admin.Jobs().ScaleStatus("burn", nil)
		if err != nil {
			t.Fatal(err)
		}
		g := status.TaskGroups["burn"]
		return g.Events, g.Running
	}
	runs := func(want int) {
		t.Helper()
		testkit.Eventually(t, 3*time.Minute, fmt.Sprintf("%d instances", want), func() error {
			if e, n := events(); n != want {
				return fmt.Errorf("%d run, after %d events", n, len(e))
			}
			return nil
		})
	}
	runs(3)
	// It stays busy, and the bound holds.
	seen := log.count("3 is the most that may run")
	testkit.Eventually(t, 2*time.Minute, "more looks at a job at its bound", func() error {
		if log.count("3 is the most that may run") < seen+8 {
			return errors.New("not yet")
		}
		return nil
	})
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	runs(1)
	list, _ := events()
	for _, e := range list {
		if e.Error || e.Count == nil || *e.Count < 1 || *e.Count > 3 || !strings.Contains(e.Message, "instances: CPU of what is reserved: a mean of ") {
			t.Errorf("%+v", e)
		}
	}
	if len(list) < 4 { // 1 → 2 → 3 → 2 → 1: at most twice as many, and one less
		t.Errorf("%d events: %+v", len(list), list)
	}
	if n := log.count("Nomad has no such job in its namespace (NOMAD_NAMESPACE): run it, or take nothing out of --scale-jobs"); n != 1 {
		t.Errorf("said %d times that a job is not there", n)
	}

	server.Kill()
	testkit.Eventually(t, 2*time.Minute, "a warning", func() error {
		if log.count("nothing is scaled until it does") == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	if log.count("[WARN]") != 2 {
		t.Errorf("%d warnings", log.count("[WARN]"))
	}
}

// TestNomadRefuses: without the right, and past the bounds.
func TestNomadRefuses(t *testing.T) {
	server, management := testkit.StartNomadWithACL(t)
	admin, err := api.NewClient(&api.Config{Address: server.Addr, SecretID: management})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := admin.Jobs().Register(burnJob("burn", "/nonexistent", 1, 2), nil); err != nil {
		t.Fatal(err)
	}
	as := func(token string) *client {
		c, err := nomad.NewClient(nomad.Options{Addr: server.Addr, Token: func() (string, error) { return token, nil }})
		if err != nil {
			t.Fatal(err)
		}
		return &client{c}
	}
	if _, err := as("").job(t.Context(), "burn"); err == nil || !strings.Contains(err.Error(), "it needs read-job and scale-job") {
		t.Errorf("anonymous: %v", err)
	}
	c := as(restricted(t, admin))
	job, err := c.job(t.Context(), "burn")
	if err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, time.Minute, "the end of the deployment", func() error {
		if active, err := c.deploying(t.Context(), "burn"); active || err != nil {
			return fmt.Errorf("active %t, %w", active, err)
		}
		return nil
	})
	if err := c.scale(t.Context(), request{job: "burn", group: "burn", to: 3, index: *job.JobModifyIndex}); err == nil || !strings.Contains(err.Error(), "greater than scaling policy maximum") {
		t.Errorf("past the bound: %v", err)
	}
	if err := c.scale(t.Context(), request{job: "burn", group: "burn", to: 2, index: *job.JobModifyIndex + 1}); err == nil || !strings.Contains(err.Error(), "conflicting job modify index") {
		t.Errorf("a job that has changed: %v", err)
	}
	if _, _, err := c.API().Jobs().Register(burnJob("other", "/nonexistent", 1, 2), &api.WriteOptions{AuthToken: must(c.Query(t.Context())).AuthToken}); err == nil {
		t.Error("the policy lets the api submit a job")
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
