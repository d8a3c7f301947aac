package transcode

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// option is a device that a run may go on.
type option struct {
	device   capacity.Device
	reserved []stream.Reservation
	limits   []capacity.Limit // in reserved's order
	share    float64          // of the device's limit that is taken then
}

// wish is a run that looks for a device of its worker.
type wish struct {
	ladder stream.Ladder
	media  stream.SourceMedia
	// held is what the worker's other runs hold, by resource; own is what the run
	// itself holds where it is.
	held map[string]int64
	own  []stream.Reservation
	// young says that measurements don't show yet what the run itself uses.
	young bool
	// require are the stream's rules, which hold here too.
	require []stream.Rule
	// not are devices that it does not go to, with the reason.
	not map[string]string
}

// choose lists the devices of a worker that can take a run and have room for it as
// far as the worker knows: GPUs before the CPU, the emptiest first. refused says
// of each other device why not.
func choose(r capacity.Report, w wish) (fit []option, refused []string) {
	for _, d := range r.Devices {
		o, why := w.weigh(r, d)
		if why != "" {
			refused = append(refused, d.ID+": "+why)
			continue
		}
		fit = append(fit, o)
	}
	slices.SortFunc(fit, func(a, b option) int {
		return cmp.Or(cmp.Compare(b.device.Kind, a.device.Kind), // gpu after cpu in the alphabet
			cmp.Compare(a.share, b.share), cmp.Compare(a.device.ID, b.device.ID))
	})
	return fit, refused
}

func (w wish) weigh(r capacity.Report, d capacity.Device) (option, string) {
	if why, ok := w.not[d.ID]; ok {
		return option{}, why
	}
	if rule := placement.Unmet(w.require, r.Labels, d.Kind); rule != "" {
		return option{}, "the stream requires " + string(rule)
	}
	if !d.Usable {
		return option{}, "not usable: " + cmp.Or(d.Reason, "no reason given")
	}
	if missing := w.missing(d); missing != "" {
		return option{}, "can't encode " + missing
	}
	cost := placement.Price(d.Kind, w.ladder, w.media)
	if d.SessionMax != nil && cost.Widest > *d.SessionMax {
		return option{}, fmt.Sprintf("one rendition needs %d px/s; one encoder session can do %d", cost.Widest, *d.SessionMax)
	}
	o := option{device: d, reserved: cost.Reserve(r, d)}
	for i, want := range o.reserved {
		limit, ok := r.Limit(want.Resource)
		if !ok && i == 0 {
			return option{}, "its capacity has not been measured"
		}
		if !ok {
			limit = capacity.Limit{Limit: math.MaxInt64} // nothing bounds it
		}
		limit = w.without(limit, want.Resource)
		o.limits = append(o.limits, limit)
		taken := w.held[want.Resource]
		if limit.Used != nil {
			taken = max(taken, *limit.Used)
		}
		if want.Amount > limit.Limit-min(taken, limit.Limit) {
			return option{}, fmt.Sprintf("needs %d of %s; of %d, %d are taken", want.Amount, want.Resource, limit.Limit, taken)
		}
		if i == 0 {
			o.share = float64(taken+want.Amount) / float64(max(1, limit.Limit))
		}
	}
	return o, ""
}

// without takes the run's own part out of what is measured of a resource.
func (w wish) without(l capacity.Limit, resource string) capacity.Limit {
	for _, r := range w.own {
		if r.Resource == resource {
			_, l.Used = placement.Load{Reserved: w.held[resource] + r.Amount}.Less(r.Amount, w.young, l.Used)
		}
	}
	return l
}

// missing names the renditions whose codec a device does not have.
func (w wish) missing(d capacity.Device) string {
	has := d.Codecs
	if d.Kind == capacity.CPU {
		has = []string{"h264"} // x264 is all that GPAC is asked for there
	}
	var missing []string
	for _, v := range w.ladder.Video {
		if !slices.Contains(has, v.Codec) {
			missing = append(missing, v.Name+" ("+v.Codec+")")
		}
	}
	return strings.Join(missing, ", ")
}

// lacking are the resources of want that are not held.
func lacking(held, want []stream.Reservation) (missing []stream.Reservation) {
	for _, r := range want {
		if !slices.ContainsFunc(held, func(h stream.Reservation) bool { return h.Resource == r.Resource }) {
			missing = append(missing, r)
		}
	}
	return missing
}

// costing gives what a placement holds the amounts of a cost. A resource that
// the cost does not need is returned.
func costing(held []stream.Reservation, c placement.Cost) []stream.Reservation {
	list := make([]stream.Reservation, 0, len(held))
	for i, r := range held {
		switch {
		case i == 0:
			r.Amount = c.Px
		case r.Resource == capacity.ResourceCPU:
			r.Amount = c.HostPx
		case r.Resource == capacity.ResourceSessions:
			r.Amount = int64(c.Sessions)
		default:
			r.Amount = c.Memory
		}
		if r.Amount > 0 {
			list = append(list, r)
		}
	}
	return list
}
