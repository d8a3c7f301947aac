package client

import (
	"fmt"
	"strings"

	"github.com/dionysia-dev/dionysia/services/api/wire"
)

// PlaceCmd is `dionysia place`.
type PlaceCmd struct {
	Explain  PlaceExplainCmd  `cmd:"" help:"Say where a stream would be transcoded now, and what stands against each device."`
	Simulate PlaceSimulateCmd `cmd:"" help:"Say where a number of streams would go, without placing any."`
}

const placeHelp = `A line for each device: its rank (1 is chosen), whether the ladder fits, and if not the code of what stands against it; what it NEEDS of the device, what is HELD there already and the device's LIMIT, in millions of encoded pixels per second (Mpx/s; a 1080p rendition at 30 frames per second has 62.2); encoder sessions, where the driver limits them, and GPU memory in GiB as needed+held/limit. A ? is not known, and a limit that is not known bounds nothing but px/s.`

// PlaceExplainCmd is `dionysia place explain`.
type PlaceExplainCmd struct {
	Flags
	ID string `arg:"" name:"stream" help:"The stream's id."`
}

// Help explains the table.
func (PlaceExplainCmd) Help() string {
	return placeHelp + "\n\nThe price is that of the ladder for the stream's source, where its run has told what that is; until then, that of the whole profile at its full size. What the stream holds already is given back first; nothing is changed."
}

// Run shows the decision.
func (cmd *PlaceExplainCmd) Run(ctx *Context) error {
	c, err := cmd.connect(ctx)
	if err != nil {
		return err
	}
	e, err := answer[wire.Explanation](c.client.ExplainPlacementWithResponse(c.Ctx, &wire.ExplainPlacementParams{Stream: cmd.ID}))
	if err != nil {
		return err
	}
	return c.print(e, func(t *table) {
		t.say("stream %s, profile %s: %s", cmd.ID, e.Profile, decided(*e))
		printQueue(t, e.Queue)
		printCosts(t, *e)
		t.say("")
		printDevices(t, e.Devices)
	})
}

// maxCount is the most that the api simulates at once.
const maxCount = 1000

// PlaceSimulateCmd is `dionysia place simulate`.
type PlaceSimulateCmd struct {
	Flags
	Profile  string `required:"" placeholder:"NAME" help:"Profile of the streams."`
	Count    int    `default:"1" placeholder:"N" help:"How many streams, 1 to 1000 (${default})."`
	Priority *int   `placeholder:"N" help:"Priority of the streams, 0 to 100; 50 unless given."`
	Degrade  bool   `help:"They may start without their top rungs."`
	rules
}

// Help explains the tables.
func (PlaceSimulateCmd) Help() string {
	return "First where the streams go, then how the one after those placed is judged.\n\n" + placeHelp
}

// Run shows where they go.
func (cmd *PlaceSimulateCmd) Run(ctx *Context) error {
	if cmd.Count < 1 || cmd.Count > maxCount {
		return fmt.Errorf("count %d is not between 1 and %d", cmd.Count, maxCount)
	}
	c, err := cmd.connect(ctx)
	if err != nil {
		return err
	}
	request := wire.SimulateRequest{Profile: cmd.Profile, Count: cmd.Count, Priority: cmd.Priority, Degrade: cmd.Degrade}
	if list := cmd.list(cmd.Require); list != nil {
		request.Require = *list
	}
	if list := cmd.list(cmd.Prefer); list != nil {
		request.Prefer = *list
	}
	s, err := answer[wire.Simulation](c.client.SimulatePlacementWithResponse(c.Ctx, request))
	if err != nil {
		return err
	}
	return c.print(s, func(t *table) {
		t.say("%d of %d streams of profile %s find room", s.Placed, s.Count, s.Next.Profile)
		if s.Refusal != nil {
			t.say("stream %d: %s", s.Placed+1, *s.Refusal)
		}
		printCosts(t, s.Next)
		t.say("")
		printGoing(t, s.Placements)
		if len(s.Placements) > 0 {
			t.say("")
		}
		if s.Refusal == nil {
			t.say("The next one %s:", decided(s.Next))
		} else {
			t.say("What stands against stream %d:", s.Placed+1)
		}
		printDevices(t, s.Next.Devices)
	})
}

func decided(e wire.Explanation) string {
	if e.Decision == nil {
		return orUnknown(e.Refusal, text)
	}
	where := "goes to " + e.Decision.Worker + "/" + e.Decision.Device
	if len(e.Decision.Dropped) > 0 {
		where += " without " + strings.Join(e.Decision.Dropped, ", ")
	}
	return where
}

func printCosts(t *table, e wire.Explanation) {
	for _, c := range e.Costs {
		if c.Kind == "gpu" {
			t.say("needs %s of a GPU, %s, %s GiB of its memory, and %s of the host's CPU", px(c.PxS), count(c.Sessions, "encoder session"), gib(c.MemoryBytes), px(c.HostPxS))
			continue
		}
		t.say("needs %s of a CPU", px(c.PxS))
	}
	t.say("policy: %s, %g %% of each limit kept for streams that lose their worker", e.Policy.Order, e.Policy.FailoverReserve*100)
}

// printQueue says where a stream stands in the queue, and after whom.
func printQueue(t *table, q *wire.QueuePlace) {
	if q == nil {
		return
	}
	text := fmt.Sprintf("waits since %s, %d of %d in the queue", clock(q.Since), q.Position, q.Waiting)
	var ahead []string
	for _, a := range []struct {
		n   int
		why string
	}{
		{q.Ahead.LostWorker, "that lost their worker"},
		{q.Ahead.Priority, "of higher priority"},
		{q.Ahead.Longer, "that waited longer"},
	} {
		if a.n > 0 {
			ahead = append(ahead, fmt.Sprintf("%d %s", a.n, a.why))
		}
	}
	if len(ahead) > 0 {
		text += ", after " + strings.Join(ahead, ", ")
	}
	t.say("%s", text)
	if k := q.Behind; k != nil {
		t.say("leaves %s/%s alone, which is kept for stream %s: it has waited long and stands before it", k.Worker, short(k.Device), k.Stream)
	}
}

// printGoing counts the placements by device and what was left out, in the order
// in which each was first taken.
func printGoing(t *table, all []wire.Decision) {
	if len(all) == 0 {
		return
	}
	type group struct{ worker, device, dropped string }
	var order []group
	count := map[group]int{}
	for _, d := range all {
		g := group{d.Worker, d.Device, "-"}
		if len(d.Dropped) > 0 {
			g.dropped = strings.Join(d.Dropped, ", ")
		}
		if count[g] == 0 {
			order = append(order, g)
		}
		count[g]++
	}
	t.row("WORKER", "DEVICE", "STREAMS", "LEFT OUT")
	for _, g := range order {
		t.row(g.worker, short(g.device), fmt.Sprint(count[g]), g.dropped)
	}
	t.end()
}

func printDevices(t *table, all []wire.ExplainedDevice) {
	if len(all) == 0 {
		return
	}
	t.row("RANK", "WORKER", "DEVICE", "FITS", "NEEDS", "HELD", "LIMIT (MPX/S)", "SESSIONS", "MEMORY (GIB)", "WHY")
	for _, d := range all {
		rank, fits, why := "-", "no: "+d.Reason, d.Text
		if d.Rank > 0 {
			rank, fits, why = fmt.Sprint(d.Rank), "yes", scored(d)
		}
		if d.Current {
			why = "it is here now; " + why
		}
		needs, held, limit := "-", "-", "-"
		if len(d.Resources) > 0 {
			r := d.Resources[0]
			needs, held, limit = mega(r.Needed), mega(r.Held), orUnknown(r.Limit, mega)
		}
		t.row(rank, d.Worker, short(d.Device), fits, needs, held, limit,
			demand(d.Resources, "sessions", number[int64]), demand(d.Resources, "bytes", gib), why)
	}
	t.end()
}

// demand is needed+held/limit of the resource in that unit, - when there is none.
func demand(list []wire.ExplainedResource, unit string, format func(int64) string) string {
	for _, r := range list {
		if r.Unit == unit {
			return format(r.Needed) + "+" + format(r.Held) + "/" + orUnknown(r.Limit, format)
		}
	}
	return "-"
}

// scored says what ranks a device that fits.
func scored(d wire.ExplainedDevice) string {
	if d.Score == nil {
		return d.Text
	}
	parts := []string{}
	if len(d.Score.Preferred) > 0 {
		parts = append(parts, "preferred by "+strings.Join(d.Score.Preferred, ", "))
	}
	parts = append(parts, fmt.Sprintf("tier %d", d.Score.Tier), fmt.Sprintf("%.0f %% full then", d.Score.Share*100))
	return strings.Join(parts, ", ")
}
