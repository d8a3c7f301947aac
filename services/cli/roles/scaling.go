package roles

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dionysia-dev/dionysia/services/nomad/scaler"
	"github.com/dionysia-dev/dionysia/services/scaling"
)

// ScalingFlags say which of Nomad's jobs have as many instances as their load needs.
type ScalingFlags struct {
	Jobs     []string      `name:"scale-jobs" placeholder:"JOB,…" help:"Nomad jobs, such as api,router, that the leading api gives more or fewer instances by their CPU use, within the bounds of their scaling block. It needs --nomad-addr. None unless given." env:"DIONYSIA_SCALE_JOBS"`
	Target   int           `name:"scale-target" help:"Mean CPU use of a job's instances that is aimed for, in percent of what they reserve, 1 to 1000. Above it there are more, below half of it fewer." default:"60" env:"DIONYSIA_SCALE_TARGET"`
	OutAfter time.Duration `name:"scale-out-after" help:"How long the mean must have been above --scale-target before there are more, at least 5s." default:"30s" env:"DIONYSIA_SCALE_OUT_AFTER"`
	InAfter  time.Duration `name:"scale-in-after" help:"How long it must have been below half of it before there is one less, at least 5s." default:"5m" env:"DIONYSIA_SCALE_IN_AFTER"`
}

// minScaleTime bounds the flags' times: a job is looked at every 5 s.
const minScaleTime = 5 * time.Second

func (f ScalingFlags) policy() (scaling.Policy, error) {
	p := scaling.Default()
	switch {
	case f.Target < 1 || f.Target > 1000:
		return p, fmt.Errorf("--scale-target %d: it is 1 to 1000 percent", f.Target)
	case f.OutAfter < minScaleTime:
		return p, fmt.Errorf("--scale-out-after %v: it is 5s or more", f.OutAfter)
	case f.InAfter < minScaleTime:
		return p, fmt.Errorf("--scale-in-after %v: it is 5s or more", f.InAfter)
	}
	p.Target, p.OutAfter, p.InAfter = float64(f.Target)/100, f.OutAfter, f.InAfter
	return p, nil
}

// scale is what the leader does beside leading. The metrics are there in any case.
func (f API) scale(log hclog.Logger, reg prometheus.Registerer) ([]func(context.Context), error) {
	m, err := scaler.NewMetrics(reg)
	if err != nil {
		return nil, fmt.Errorf("scaling metrics: %w", err)
	}
	if len(f.Scaling.Jobs) == 0 || (len(f.Scaling.Jobs) == 1 && f.Scaling.Jobs[0] == "") { // an empty variable is a list of that
		return nil, nil
	}
	seen := map[string]bool{}
	for _, job := range f.Scaling.Jobs {
		if job == "" || seen[job] {
			return nil, fmt.Errorf("--scale-jobs: %q is empty or given twice", job)
		}
		seen[job] = true
	}
	policy, err := f.Scaling.policy()
	if err != nil {
		return nil, err
	}
	client, err := f.Nomad.client()
	switch {
	case err != nil:
		return nil, err
	case client == nil:
		return nil, errors.New("--scale-jobs needs Nomad: --nomad-addr names it")
	}
	return []func(context.Context){scaler.New(client, f.Scaling.Jobs, policy, log, m).Lead}, nil
}
