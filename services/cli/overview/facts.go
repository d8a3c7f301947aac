package overview

import (
	"context"
	"sync"
	"time"

	consul "github.com/hashicorp/consul/api"
	nomad "github.com/hashicorp/nomad/api"

	"github.com/dionysia-dev/dionysia/services/api/wire"
	ours "github.com/dionysia-dev/dionysia/services/nomad"
)

// timeout bounds what is asked of one source.
const timeout = 10 * time.Second

// Facts are what the sources say, before they are joined. An error stands for what
// could not be had.
type Facts struct {
	Nomad  NomadFacts
	Consul ConsulFacts
	API    APIFacts
}

// NomadFacts are what Nomad says.
type NomadFacts struct {
	Address  string
	Off      bool
	Nodes    []*nomad.NodeListStub
	NodesErr error
	// Leader is false when the servers have none: what they say may be old.
	Leader    bool
	Allocs    []*nomad.AllocationListStub
	AllocsErr error
	Jobs      []*nomad.JobListStub
	JobsErr   error
	// Unplaced says, by job, why no node takes what is queued.
	Unplaced map[string]string
}

// ConsulFacts are what Consul says.
type ConsulFacts struct {
	Address string
	Off     bool
	Nodes   []*consul.Node
	Checks  consul.HealthChecks
	Err     error
	Leader  bool
	// Filtered says that the token may not read all of it.
	Filtered bool
}

// APIFacts are what the management API says.
type APIFacts struct {
	Address    string
	Off        bool
	Workers    []wire.Worker
	WorkersErr error
	Streams    []wire.StreamStatus
	StreamsErr error
}

// Management is what is asked of the management API.
type Management interface {
	Workers(ctx context.Context) ([]wire.Worker, error)
	Broadcasts(ctx context.Context) ([]wire.StreamStatus, error)
}

// Asked are the sources: their clients, or why there is none. One without either is
// off.
type Asked struct {
	NomadAddress, ConsulAddress, APIAddress string
	Nomad                                   *ours.Client
	Consul                                  *consul.Client
	API                                     Management
	NomadErr, ConsulErr, APIErr             error
}

// Close ends the connections that are kept.
func (a Asked) Close() {
	if a.NomadErr == nil && a.Nomad != nil {
		a.Nomad.API().Close()
	}
}

// Gather asks all sources at once. What fails is in the facts.
func Gather(ctx context.Context, a Asked) Facts {
	var f Facts
	var wg sync.WaitGroup
	ask := func(read func(ctx context.Context)) {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			read(ctx)
		})
	}
	switch {
	case a.NomadErr != nil:
		f.Nomad = NomadFacts{NodesErr: a.NomadErr}
	case a.Nomad == nil:
		f.Nomad.Off = true
	default:
		ask(func(ctx context.Context) { f.Nomad = readNomad(ctx, a.Nomad) })
	}
	switch {
	case a.ConsulErr != nil:
		f.Consul.Err = a.ConsulErr
	case a.Consul == nil:
		f.Consul.Off = true
	default:
		ask(func(ctx context.Context) { f.Consul = readConsul(ctx, a.Consul) })
	}
	switch {
	case a.APIErr != nil:
		f.API = APIFacts{WorkersErr: a.APIErr}
	case a.API == nil:
		f.API.Off = true
	default:
		ask(func(ctx context.Context) { f.API = readAPI(ctx, a.API) })
	}
	wg.Wait()
	f.Nomad.Address, f.Consul.Address, f.API.Address = a.NomadAddress, a.ConsulAddress, a.APIAddress
	return f
}

func readAPI(ctx context.Context, m Management) (f APIFacts) {
	if f.Workers, f.WorkersErr = m.Workers(ctx); f.WorkersErr != nil {
		return f // the rest would fail for the same reason
	}
	f.Streams, f.StreamsErr = m.Broadcasts(ctx)
	return f
}
