package placement

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// Request is a broadcast that needs a device.
type Request struct {
	Stream  string
	Profile stream.Profile
	// Media is what is known of the source; nil when nothing is. With it the ladder
	// has its real price, without it the profile's (see PriceFor).
	Media *stream.SourceMedia
	// Require must hold, every one; of Prefer as many as can, the first weighing
	// most. At most stream.MaxRules each.
	Require, Prefer []stream.Rule
	Priority        int
	// Degrade lets it take a device without its top rungs.
	Degrade bool
	// Failover is set for a stream that lost its worker: it may use the reserve.
	Failover bool
	// Stay names the worker that wins when it has room; "" for none.
	Stay string
	// Avoid lists what is not asked: "worker" or "worker/device".
	Avoid []string
	// Own is what a commit would give back; it does not count against the stream.
	Own Own
	// Behind is the stream that waits first and has lost its patience, nil for
	// none: a device is kept for it. A Failover ignores it.
	Behind *Head
}

// Decision is a proposal to commit.
type Decision struct {
	Worker string `json:"worker"`
	Boot   string `json:"boot"`
	Device string `json:"device"`
	// Reserved is what it takes, the device first, and Limits what each of those
	// resources may hold together, in the same order. A limit that is not known is
	// Unbounded.
	Reserved []stream.Reservation `json:"reserved"`
	Limits   []capacity.Limit     `json:"limits"`
	// Profile is what is to be made, and Dropped what was left out of the
	// request's profile for want of room, in its order.
	Profile stream.Profile          `json:"profile"`
	Dropped []stream.VideoRendition `json:"dropped,omitempty"`
	Score   Score                   `json:"score"`
}

// rule is a parsed stream.Rule.
type rule struct {
	key, value string
	equal      bool
}

func parseRules(list []stream.Rule) ([]rule, error) {
	if len(list) == 0 {
		return nil, nil
	}
	if len(list) > stream.MaxRules {
		return nil, fmt.Errorf("%d rules, at most %d are allowed: %w", len(list), stream.MaxRules, stream.ErrInvalid)
	}
	rules := make([]rule, len(list))
	for i, r := range list {
		var err error
		if rules[i].key, rules[i].value, rules[i].equal, err = r.Parse(); err != nil {
			return nil, err
		}
	}
	return rules, nil
}

// holds judges a rule for a device of a worker with these labels.
func (r rule) holds(labels map[string]string, k kind) bool {
	if r.key == stream.DeviceKey {
		return (k.String() == r.value) == r.equal
	}
	v, ok := labels[r.key]
	return (ok && v == r.value) == r.equal
}

// Unmet returns the first of the rules that does not hold for a device of this
// kind at a worker with these labels, or that can't be parsed; "" when all hold.
func Unmet(require []stream.Rule, labels map[string]string, k capacity.Kind) stream.Rule {
	for _, text := range require {
		if r, err := parseRules([]stream.Rule{text}); err != nil || !r[0].holds(labels, kindOf(k)) {
			return text
		}
	}
	return ""
}

// ruled is what the rules say of one set of labels and one kind of device.
type ruled struct {
	require bool
	prefer  uint16 // the first rule is the highest bit
}

// rowRef names a device of the view; device is -1 for a whole worker.
type rowRef struct{ host, device int }

// query is a request prepared for one view.
type query struct {
	r       Request
	s       *Snapshot
	v       *view
	profile stream.Profile
	cost    [kinds]Cost
	codecs  codecs
	small   bool // see tier
	// gpuOnly: the rules exclude CPUs. anywhere: CPUs could do it as well as GPUs.
	gpuOnly, anywhere bool
	rules             [][kinds]ruled // by view.labels; nil without rules
	avoid             []rowRef
	stay              int    // host, -1 for none
	own               int    // host whose rooms Own makes larger, -1 for none
	behind            rowRef // the device that is kept for Behind; host -1 for none
	// victims, all of one host, are placements that would go for this one.
	victims   []Own
	victimsOn int // -1 for none
	// ceiling is how full a device may become, 0 to 1; 0 is up to its limit.
	ceiling float64
	scratch [maxNeeds]room
}

// query prepares a request. Its error wraps stream.ErrInvalid.
func (s *Snapshot) query(r Request) (*query, error) {
	require, err := parseRules(r.Require)
	if err != nil {
		return nil, fmt.Errorf("require: %w", err)
	}
	prefer, err := parseRules(r.Prefer)
	if err != nil {
		return nil, fmt.Errorf("prefer: %w", err)
	}
	v := s.compiled()
	q := &query{r: r, s: s, v: v, stay: v.find(r.Stay), own: v.find(r.Own.Worker), behind: rowRef{-1, -1}, victimsOn: -1}
	q.gpuOnly = slices.ContainsFunc(require, func(r rule) bool { return r.key == stream.DeviceKey && !r.holds(nil, onCPU) })
	q.price(r.Profile)
	if len(require)+len(prefer) > 0 {
		q.rules = make([][kinds]ruled, len(v.labels))
	}
	for i := range q.rules {
		for k := range kinds {
			q.rules[i][k] = judgeRules(require, prefer, v.labels[i], k)
		}
	}
	for _, name := range r.Avoid {
		worker, device, one := strings.Cut(name, "/")
		ref := rowRef{host: v.find(worker), device: -1}
		if ref.host < 0 {
			continue
		}
		if one {
			if ref.device = s.deviceIndex(ref.host, device); ref.device < 0 {
				continue
			}
		}
		q.avoid = append(q.avoid, ref)
	}
	if h := r.Behind; h != nil && !r.Failover && h.Stream != r.Stream {
		if host := v.find(h.Worker); host >= 0 {
			if device := s.deviceIndex(host, h.Device); device >= 0 {
				q.behind = rowRef{host, device}
			}
		}
	}
	return q, nil
}

// price makes the query ask for a profile.
func (q *query) price(p stream.Profile) {
	q.profile = p
	q.cost = costs(p, q.r.Media)
	q.codecs = neededCodecs(p)
	q.small = q.cost[onCPU].Px <= SmallPx
	q.anywhere = q.codecs&^codecH264 == 0 && !q.gpuOnly
}

func costs(p stream.Profile, media *stream.SourceMedia) [kinds]Cost {
	return [kinds]Cost{onCPU: PriceFor(capacity.CPU, p, media), onGPU: PriceFor(capacity.GPU, p, media)}
}

func judgeRules(require, prefer []rule, labels map[string]string, k kind) ruled {
	j := ruled{require: true}
	for _, r := range require {
		j.require = j.require && r.holds(labels, k)
	}
	for i, r := range prefer {
		if r.holds(labels, k) {
			j.prefer |= 1 << (15 - i)
		}
	}
	return j
}

// ruled is what the rules say of a device.
func (q *query) ruled(h *host, k kind) ruled {
	if q.rules == nil {
		return ruled{require: true}
	}
	return q.rules[h.labels][k]
}

func (v *view) find(worker string) int {
	if i, ok := v.byName[worker]; ok {
		return i
	}
	return -1
}

func (s *Snapshot) deviceIndex(host int, id string) int {
	for j, d := range s.Workers[host].Report.Devices {
		if d.ID == id {
			return j
		}
	}
	return -1
}
