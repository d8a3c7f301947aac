package scaler

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	nomad "github.com/hashicorp/nomad/api"

	ours "github.com/dionysia-dev/dionysia/services/nomad"
)

// timeout bounds each request.
const timeout = 5 * time.Second

// awayError says that Nomad did not answer.
type awayError struct{ err error }

func (e *awayError) Error() string { return e.err.Error() }
func (e *awayError) Unwrap() error { return e.err }

// client is a view of Nomad's client.
type client struct{ *ours.Client }

// ask sends a request with the options of a read.
func (c *client) ask(ctx context.Context, send func(q *nomad.QueryOptions) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	q, err := c.Query(ctx)
	if err != nil {
		return err
	}
	return answered(send(q))
}

// answered tells what Nomad says from its silence.
func answered(err error) error {
	var said nomad.UnexpectedResponseError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &said) || said.StatusCode() == http.StatusBadGateway || said.StatusCode() == http.StatusServiceUnavailable:
		return &awayError{err}
	case said.StatusCode() == http.StatusForbidden:
		return errors.New("the token may not: it needs read-job and scale-job in the job's namespace (nomad/policies/api.hcl)")
	}
	if body := strings.TrimSpace(said.Body()); body != "" {
		return errors.New(body)
	}
	return err
}

func (c *client) job(ctx context.Context, id string) (job *nomad.Job, err error) {
	err = c.ask(ctx, func(q *nomad.QueryOptions) (err error) {
		job, _, err = c.API().Jobs().Info(id, q)
		var said nomad.UnexpectedResponseError
		if errors.As(err, &said) && said.StatusCode() == http.StatusNotFound {
			job, err = nil, nil
		}
		return err
	})
	if err == nil && job == nil {
		err = fmt.Errorf("Nomad has no such job in its namespace (NOMAD_NAMESPACE): run it, or take %s out of --scale-jobs", id) //nolint:staticcheck // Nomad is a name
	}
	return job, err
}

func (c *client) deploying(ctx context.Context, id string) (active bool, err error) {
	err = c.ask(ctx, func(q *nomad.QueryOptions) error {
		d, _, err := c.API().Jobs().LatestDeployment(id, q)
		if err == nil && d != nil {
			switch d.Status {
			case nomad.DeploymentStatusSuccessful, nomad.DeploymentStatusFailed, nomad.DeploymentStatusCancelled:
			default:
				active = true
			}
		}
		return err
	})
	return active, err
}

func (c *client) allocations(ctx context.Context, id string) (list []*nomad.AllocationListStub, err error) {
	err = c.ask(ctx, func(q *nomad.QueryOptions) (err error) {
		q.Filter = "JobID == " + strconv.Quote(id) + ` and DesiredStatus == "run"`
		q.Params = map[string]string{"resources": "true"}
		list, _, err = c.API().Allocations().List(q)
		return err
	})
	return list, err
}

// stats asks the client that runs the allocation, through the servers.
func (c *client) stats(ctx context.Context, alloc string) (u *nomad.AllocResourceUsage, err error) {
	err = c.ask(ctx, func(q *nomad.QueryOptions) (err error) {
		u, err = c.API().Allocations().Stats(&nomad.Allocation{ID: alloc}, q)
		return err
	})
	return u, err
}

func (c *client) scale(ctx context.Context, r request) error {
	return c.ask(ctx, func(q *nomad.QueryOptions) error {
		count := int64(r.to)
		w := (&nomad.WriteOptions{AuthToken: q.AuthToken}).WithContext(q.Context())
		_, _, err := c.API().Jobs().ScaleWithRequest(r.job, &nomad.ScalingRequest{
			Count: &count, Target: map[string]string{"Job": r.job, "Group": r.group}, Message: r.message, Meta: r.meta, JobModifyIndex: r.index,
		}, w)
		return err
	})
}
