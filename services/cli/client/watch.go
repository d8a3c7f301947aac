package client

import (
	"fmt"
	"strings"
	"time"

	"github.com/dionysia-dev/dionysia/services/api/wire"
)

// StreamStatusCmd is `dionysia stream status`.
type StreamStatusCmd struct {
	Flags
	ID string `arg:""`
}

// Run shows the status.
func (cmd *StreamStatusCmd) Run(ctx *Context) error {
	c, err := cmd.connect(ctx)
	if err != nil {
		return err
	}
	s, err := c.status(cmd.ID)
	if err != nil {
		return err
	}
	return c.print(s, func(t *table) {
		t.row("stream", s.Stream)
		t.row("state", string(s.State))
		if s.Session != nil {
			t.row("session", fmt.Sprintf("%s from %s at node %s since %s (%s)", s.Session.Protocol,
				orDash(s.Session.Remote, text), s.Session.Node, clock(s.Session.StartedAt), strings.Join(s.Session.Tracks, ", ")))
		}
		if s.Broadcast != nil {
			t.row("broadcast", fmt.Sprintf("%s, %s, since %s", s.Broadcast.ID, s.Broadcast.State, clock(s.Broadcast.StartedAt)))
			printWaiting(t, *s.Broadcast)
		}
		if s.Placement != nil {
			printPlacement(t, *s.Placement)
		}
		if r := s.Run; r != nil {
			t.row("run", fmt.Sprintf("%s, %s, on %s, %s", r.ID, r.State, orUnknown(r.Device, text), count(r.Restarts, "restart")))
		}
		for _, r := range s.Renditions {
			t.row("rendition "+r.Name, rendition(r))
		}
		if s.LastError != nil && (s.Broadcast == nil || s.Broadcast.Reason == nil) {
			t.row("last error", *s.LastError)
		}
	})
}

func printWaiting(t *table, b wire.Broadcast) {
	if b.WaitingSince != nil {
		t.row("waiting since", clock(*b.WaitingSince))
	}
	if b.Reason != nil {
		t.row("waiting for", *b.Reason)
	}
}

func printPlacement(t *table, p wire.Placement) {
	t.row("placement", fmt.Sprintf("%s/%s, epoch %d, %s, priority %d, since %s", p.Worker, p.Device, p.Epoch, p.State, p.Priority, clock(p.CommittedAt)))
	for _, r := range p.Reserved {
		t.row("reserved", amount(r.Amount, r.Unit)+" of "+r.Resource)
	}
	if len(p.Dropped) > 0 {
		t.row("left out", strings.Join(p.Dropped, ", ")+", for want of room")
	}
}

func rendition(r wire.RenditionStatus) string {
	parts := []string{r.Codec}
	if r.Width != nil && r.Height != nil {
		parts = append(parts, fmt.Sprintf("%dx%d", *r.Width, *r.Height))
	}
	if r.Fps != nil {
		parts = append(parts, fmt.Sprintf("%.3f fps", *r.Fps))
	}
	return strings.Join(append(parts, mega(r.Bitrate)+" Mbit/s"), " ")
}

func (c *session) status(id string) (*wire.StreamStatus, error) {
	return answer[wire.StreamStatus](c.client.GetStreamStatusWithResponse(c.Ctx, id))
}

// events returns what came after the cursor, and the cursor behind it.
func (c *session) events(id string, after *string) ([]wire.Event, *string, error) {
	limit := pageSize
	var all []wire.Event
	for {
		p, err := answer[page[wire.Event]](c.client.ListStreamEventsWithResponse(c.Ctx, id, &wire.ListStreamEventsParams{Limit: &limit, After: after}))
		if err != nil {
			return nil, nil, err
		}
		all = append(all, p.Items...)
		if p.Next != nil {
			after = p.Next
		}
		if len(p.Items) < limit {
			return all, after, nil
		}
	}
}

// StreamEventsCmd is `dionysia stream events`.
type StreamEventsCmd struct {
	Flags
	ID     string `arg:""`
	Follow bool   `short:"f" help:"Wait for more."`
}

// Run prints the events, oldest first, one JSON document a line with -o json.
func (cmd *StreamEventsCmd) Run(ctx *Context) error {
	c, err := cmd.connect(ctx)
	if err != nil {
		return err
	}
	var after *string
	for {
		events, next, err := c.events(cmd.ID, after)
		if err != nil {
			return c.ended(err)
		}
		after = next
		for _, e := range events {
			if err := c.event(e); err != nil {
				return err
			}
		}
		if !cmd.Follow || !c.wait(time.Second) {
			return nil
		}
	}
}

func (c *session) event(e wire.Event) error {
	return c.line(e, fmt.Sprintf("%s  %-5s  %s  %s", clock(e.Time), e.Level, e.Type, e.Message))
}

// StreamWatchCmd is `dionysia stream watch`.
type StreamWatchCmd struct {
	Flags
	ID       string        `arg:""`
	Interval time.Duration `default:"1s" help:"How often to look (${default}), at least 100ms."`
}

// minInterval is how often a command may ask at most.
const minInterval = 100 * time.Millisecond

func checkInterval(d time.Duration) error {
	if d < minInterval {
		return fmt.Errorf("--interval: %v is less than %v", d, minInterval)
	}
	return nil
}

// Validate implements kong's validator.
func (cmd *StreamWatchCmd) Validate() error { return checkInterval(cmd.Interval) }

// Run prints the state and each change of it until it is interrupted.
func (cmd *StreamWatchCmd) Run(ctx *Context) error {
	c, err := cmd.connect(ctx)
	if err != nil {
		return err
	}
	_, after, err := c.events(cmd.ID, nil)
	if err != nil {
		return c.ended(err)
	}
	shown := ""
	for {
		s, err := c.status(cmd.ID)
		if err != nil {
			return c.ended(err)
		}
		var events []wire.Event
		if events, after, err = c.events(cmd.ID, after); err != nil {
			return c.ended(err)
		}
		if !c.json { // JSON lines are statuses only, so that each has one form
			for _, e := range events {
				if err := c.event(e); err != nil {
					return err
				}
			}
		}
		if now := summary(s); now != shown {
			if err := c.line(s, time.Now().Format(time.DateTime)+"  "+now); err != nil {
				return err
			}
			shown = now
		}
		if !c.wait(cmd.Interval) {
			return nil
		}
	}
}

// summary is a status in a line. What changes all the time, such as measured
// rates, is not part of it.
func summary(s *wire.StreamStatus) string {
	parts := []string{"state", string(s.State)}
	if s.Session != nil {
		parts = append(parts, s.Session.Protocol, "session", s.Session.ID)
	}
	if s.Placement != nil {
		parts = append(parts, "on", s.Placement.Worker+"/"+s.Placement.Device)
	}
	if s.Run != nil {
		parts = append(parts, "run", s.Run.ID, string(s.Run.State))
		if s.Run.Device != nil && s.Placement != nil && *s.Run.Device != s.Placement.Device {
			parts = append(parts, "on", *s.Run.Device)
		}
	}
	for i, r := range s.Renditions {
		if i == 0 {
			parts = append(parts, "renditions")
		}
		parts = append(parts, r.Name)
	}
	if s.LastError != nil {
		parts = append(parts, "last error:", *s.LastError)
	}
	return strings.Join(parts, " ")
}

// ended hides the error of a command that was interrupted.
func (c *session) ended(err error) error {
	if c.Ctx.Err() == nil {
		return err
	}
	return nil
}

// wait is false when the command was interrupted.
func (c *session) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.Ctx.Done():
		return false
	}
}
