// Package overview joins what Nomad, Consul and the management API say of a
// cluster into one status: a row for each node, and what is wrong.
//
//	Nomad:  nodes, jobs, allocations ─┐
//	Consul: nodes, checks ────────────┼─▶ Facts ──Assemble──▶ Status{Nodes, Problems, …}
//	api:    workers, broadcasts ──────┘
//
// Each of the three may be away, refuse, or not be used. What can't be had is
// unknown, a nil, and never an empty list or a 0; why is in the Status too.
package overview

import (
	"time"

	"github.com/dionysia-dev/dionysia/services/api/wire"
)

// The sources of a status.
const (
	Nomad  = "nomad"
	Consul = "consul"
	API    = "api"
)

// Status is a cluster at one moment, as far as it can be had. In JSON a list that
// is null is unknown.
type Status struct {
	Time    time.Time `json:"time"`
	Sources []Source  `json:"sources"`
	Nodes   []Node    `json:"nodes"`
	// Jobs are Nomad's that are to run.
	Jobs []Job `json:"jobs"`
	// Streams are those with a publisher, or with a broadcast that has not ended.
	Streams []wire.StreamStatus `json:"streams"`
	// Problems are what is wrong, the worst first.
	Problems []Problem `json:"problems"`
}

// Source is one of those that were asked.
type Source struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	// Off says that it was not asked because it is not used.
	Off bool `json:"off"`
	// Answered says that it has told of its nodes, checks or workers.
	Answered bool `json:"answered"`
	// Missing is what could not be had, and why.
	Missing []string `json:"missing"`
}

// Node is a machine, as it is known to any of the sources.
type Node struct {
	Name    string `json:"name"`
	Address string `json:"address,omitempty"`
	// Nomad is nil when it does not know the node, or is not known itself; so is
	// Consul.
	Nomad  *NomadNode  `json:"nomad"`
	Consul *ConsulNode `json:"consul"`
	// Workers are those that report from it.
	Workers []wire.Worker `json:"workers"`
	// Ingests are the streams that are published there.
	Ingests []string `json:"ingests"`
}

// NomadNode is a node of Nomad's, and what is to run there.
type NomadNode struct {
	ID          string `json:"id"`
	Status      string `json:"status"` // ready, down, disconnected, initializing
	Eligible    bool   `json:"eligible"`
	Drain       bool   `json:"drain"`
	Datacenter  string `json:"datacenter"`
	Class       string `json:"class,omitempty"`
	Version     string `json:"version"`
	Description string `json:"description,omitempty"`
	// Drivers are those that Nomad found there.
	Drivers []Driver `json:"drivers"`
	// Allocations are those that are to run there.
	Allocations []Allocation `json:"allocations"`
}

// Driver is a task driver of a node.
type Driver struct {
	Name        string `json:"name"`
	Healthy     bool   `json:"healthy"`
	Description string `json:"description,omitempty"`
}

// Allocation is one that is to run.
type Allocation struct {
	ID       string    `json:"id"`
	Job      string    `json:"job"`
	Group    string    `json:"group"`
	Version  uint64    `json:"version"`
	Status   string    `json:"status"`            // pending, running, complete, failed, lost, unknown
	Healthy  *bool     `json:"healthy,omitempty"` // nil until its deployment has judged it
	Restarts uint64    `json:"restarts"`
	Since    time.Time `json:"since"` // when it was made
	// Last is what happened last to the task of it that does not run; "" when all do.
	Last string `json:"last,omitempty"`
}

// Job is one that is to run: of as many as it should have, how many do.
type Job struct {
	Name    string `json:"name"`
	Type    string `json:"type"`
	Running int    `json:"running"`
	Desired int    `json:"desired"`
	// Unplaced are those that no node takes; Why says what stands against them.
	Unplaced int    `json:"unplaced"`
	Why      string `json:"why,omitempty"`
}

// ConsulNode is a node of Consul's.
type ConsulNode struct {
	Name string `json:"name"`
	// Failing are the node's own checks that do not pass.
	Failing []Check `json:"failing"`
	// Services are the instances that have a check.
	Services []Service `json:"services"`
}

// Service is an instance of a service.
type Service struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	// Passing says that DNS hands it out: no check of it or of its node is critical.
	Passing bool `json:"passing"`
	// Failing are its own checks that do not pass.
	Failing []Check `json:"failing"`
}

// Check is one of Consul's that does not pass.
type Check struct {
	Name   string `json:"name"`
	Status string `json:"status"` // warning, critical or maintenance
	Output string `json:"output"`
}

// The levels of a problem.
const (
	// Critical is what somebody must look at.
	Critical = "critical"
	// Warning is what somebody may have meant, or what costs nobody anything yet.
	Warning = "warning"
)

// Problem is something that is wrong.
type Problem struct {
	Level string `json:"level"`
	// Kind is source, node, driver, job, allocation, check, worker, device or stream.
	Kind string `json:"kind"`
	// Name is which one.
	Name string `json:"name"`
	// Text says what, and why as far as it is known.
	Text string `json:"text"`
}

// Critical returns the problems that somebody must look at.
func (s *Status) Critical() []Problem {
	var list []Problem
	for _, p := range s.Problems {
		if p.Level == Critical {
			list = append(list, p)
		}
	}
	return list
}

// Source returns one of the three.
func (s *Status) Source(name string) Source {
	for _, src := range s.Sources {
		if src.Name == name {
			return src
		}
	}
	return Source{Name: name, Off: true}
}
