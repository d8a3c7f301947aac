package placement

import (
	"cmp"
	"slices"
	"strings"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// Explanation is a decision with everything behind it.
type Explanation struct {
	Stream string `json:"stream"`
	Policy Policy `json:"policy"`
	// Small: the ladder gains little from a GPU (see Score.Tier).
	Small bool `json:"small"`
	// Costs of the request's whole profile, by kind of device.
	Costs map[capacity.Kind]Cost `json:"costs"`
	// Decision is what Decide chooses; nil when there is no room, and then Refusal
	// says so.
	Decision *Decision `json:"decision,omitempty"`
	Refusal  string    `json:"refusal,omitempty"`
	// Devices are those that fit by rank, then the rest by name. They are judged
	// for Profile: the whole profile, or what it was degraded to.
	Devices []DeviceExplanation `json:"devices"`
	Profile stream.Profile      `json:"profile"`
}

// DeviceExplanation is what was found of one device. Device is "" for a worker
// that is refused as a whole and has reported no device.
type DeviceExplanation struct {
	Worker string        `json:"worker"`
	Device string        `json:"device,omitempty"`
	Kind   capacity.Kind `json:"kind,omitempty"`
	Name   string        `json:"name,omitempty"`
	// Rank counts from 1, the chosen one; 0 when it does not fit.
	Rank   int    `json:"rank"`
	Reason Reason `json:"reason"`
	Text   string `json:"text"`
	// Score is nil when it does not fit.
	Score *Score `json:"score,omitempty"`
	// Preferred are the preferred rules that hold.
	Preferred []stream.Rule         `json:"preferred,omitempty"`
	Resources []ResourceExplanation `json:"resources"`
}

// ResourceExplanation is a resource that the stream would take of a device.
type ResourceExplanation struct {
	Resource string `json:"resource"`
	Need     int64  `json:"need"`
	// Limit is nil when it is not known; Open is what is left of it without the
	// reserve for failover.
	Limit *int64 `json:"limit"`
	Open  *int64 `json:"open"`
	Load
	Used *int64 `json:"used"`
	Held int64  `json:"held"`
}

// Explain decides as Decide does, and says of every device why. Its only error
// is stream.ErrInvalid for rules that can't be read.
func Explain(s *Snapshot, r Request) (Explanation, error) {
	q, err := s.query(r)
	if err != nil {
		return Explanation{}, err
	}
	e := Explanation{Stream: r.Stream, Policy: s.Policy, Small: q.small,
		Costs: map[capacity.Kind]Cost{capacity.CPU: q.cost[onCPU], capacity.GPU: q.cost[onGPU]}}
	if d, err := q.decide(); err == nil {
		e.Decision = &d
	} else {
		e.Refusal = err.Error()
	}
	e.Profile = q.profile // what decide tried last
	for hi := range q.v.hosts {
		if len(q.v.hosts[hi].rows) == 0 {
			e.Devices = append(e.Devices, q.explain(rowRef{hi, -1}))
		}
		for di := range q.v.hosts[hi].rows {
			e.Devices = append(e.Devices, q.explain(rowRef{hi, di}))
		}
	}
	slices.SortFunc(e.Devices, func(a, b DeviceExplanation) int { return byRank(a, b, s.Policy.Pack) })
	for i := range e.Devices {
		if e.Devices[i].Score != nil {
			e.Devices[i].Rank = i + 1
		}
	}
	return e, nil
}

func byRank(a, b DeviceExplanation, pack bool) int {
	name := cmp.Or(strings.Compare(a.Worker, b.Worker), strings.Compare(a.Device, b.Device))
	switch {
	case a.Score != nil && b.Score != nil:
		return cmp.Or(better(*a.Score, *b.Score, pack), name)
	case a.Score != nil:
		return -1
	case b.Score != nil:
		return 1
	}
	return name
}

func (q *query) explain(ref rowRef) DeviceExplanation {
	w := &q.s.Workers[ref.host]
	h := &q.v.hosts[ref.host]
	e := DeviceExplanation{Worker: w.Report.Worker, Reason: h.reason, Resources: []ResourceExplanation{}}
	verdictOf := ref
	if h.reason != Fits {
		verdictOf.device = -1
	}
	if ref.device >= 0 {
		d := &w.Report.Devices[ref.device]
		e.Device, e.Kind, e.Name = d.ID, d.Kind, d.Name
		var share float64
		if e.Reason, share = q.judge(ref.host, ref.device); e.Reason == Fits {
			score := q.score(ref.host, ref.device, share)
			e.Score = &score
		}
		e.Resources = q.resources(ref)
		for i, text := range q.r.Prefer {
			if q.ruled(h, h.rows[ref.device].kind).prefer&(1<<(15-i)) != 0 {
				e.Preferred = append(e.Preferred, text)
			}
		}
	}
	e.Text = q.verdict(verdictOf, e.Reason).Text()
	return e
}

func (q *query) resources(ref rowRef) []ResourceExplanation {
	var needs [maxNeeds]need
	n := q.needs(ref.host, ref.device, &needs)
	list := make([]ResourceExplanation, 0, n)
	for _, n := range needs[:n] {
		resource := resourceOf(n.reason, q.s.Workers[ref.host].Report.Devices[ref.device].ID)
		a := q.account(ref.host, resource)
		r := ResourceExplanation{Resource: resource, Need: n.amount, Load: a.load, Used: a.used, Held: a.held}
		if a.limit < Unbounded {
			r.Limit, r.Open = &a.limit, &a.open
		}
		list = append(list, r)
	}
	return list
}
