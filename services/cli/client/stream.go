package client

import (
	"fmt"
	"strings"
	"time"

	"github.com/dionysia-dev/dionysia/services/api/wire"
)

// StreamCmd is `dionysia stream`.
type StreamCmd struct {
	Create    StreamCreateCmd `cmd:"" help:"Create a stream and print its key."`
	List      StreamListCmd   `cmd:"" name:"ls" aliases:"list" help:"List the streams."`
	Get       StreamGetCmd    `cmd:"" aliases:"show" help:"Show a stream's settings."`
	Update    StreamUpdateCmd `cmd:"" help:"Change a stream's settings."`
	Delete    StreamDeleteCmd `cmd:"" aliases:"rm" help:"Delete a stream; a live broadcast ends."`
	RotateKey StreamRotateCmd `cmd:"" help:"Replace a stream's key and print the new one."`
	Status    StreamStatusCmd `cmd:"" help:"Show what a stream is doing now."`
	Events    StreamEventsCmd `cmd:"" help:"Show a stream's history."`
	Watch     StreamWatchCmd  `cmd:"" help:"Print a stream's changes as they happen."`
}

// settings are the flags that create and update share. A nil field is left
// to the api.
type settings struct {
	Name     *string        `placeholder:"TEXT" help:"Name for people."`
	Profile  *string        `placeholder:"NAME" help:"Profile: the ladder of renditions."`
	Disabled *bool          `negatable:"" help:"Refuse publishers."`
	Grace    *time.Duration `placeholder:"15s" help:"A publisher that returns within it continues the broadcast."`
	HoldBack *time.Duration `placeholder:"12s" help:"How far behind the live edge players stay."`
	Window   *time.Duration `placeholder:"60s" help:"How much of the past the playlists list."`
	Priority *int           `placeholder:"N" help:"Of the streams that wait for capacity, the higher goes first: 0 to 100; 50 unless given."`
	Degrade  *bool          `negatable:"" help:"Start without the top rungs while there is no room for all of them."`
	rules
}

// rules are the flags that say where streams are transcoded.
type rules struct {
	Require []string `sep:"none" placeholder:"RULE" help:"Rule of where it is transcoded, key=value or key!=value: device=gpu, device=cpu, or a worker's label such as datacenter=ams1. All must hold. Repeatable; an empty value for none."`
	Prefer  []string `sep:"none" placeholder:"RULE" help:"Rule that should hold, the first weighing most. Repeatable; an empty value for none."`
}

// list is nil when the flag was not given, and empty when it was given as ”.
func (rules) list(given []string) *[]wire.Rule {
	if given == nil {
		return nil
	}
	list := []wire.Rule{}
	for _, r := range given {
		if r != "" {
			list = append(list, r)
		}
	}
	return &list
}

func (s settings) update() wire.StreamUpdate {
	return wire.StreamUpdate{
		Name: s.Name, Profile: s.Profile, Disabled: s.Disabled,
		GraceSeconds: inSeconds(s.Grace), HoldBackSeconds: inSeconds(s.HoldBack), WindowSeconds: inSeconds(s.Window),
		Priority: s.Priority, Degrade: s.Degrade, Require: s.list(s.Require), Prefer: s.list(s.Prefer),
	}
}

func inSeconds(d *time.Duration) *float64 {
	if d == nil {
		return nil
	}
	s := d.Seconds()
	return &s
}

// StreamCreateCmd is `dionysia stream create`.
type StreamCreateCmd struct {
	Flags
	ID string `arg:"" help:"Lower case letters, digits, - and _."`
	settings
}

// Run creates the stream.
func (cmd *StreamCreateCmd) Run(ctx *Context) error {
	c, err := cmd.connect(ctx)
	if err != nil {
		return err
	}
	u := cmd.update()
	s, err := answer[wire.StreamWithKey](c.client.CreateStreamWithResponse(c.Ctx, wire.StreamCreate{
		ID: cmd.ID, Name: u.Name, Profile: u.Profile, Disabled: u.Disabled,
		GraceSeconds: u.GraceSeconds, HoldBackSeconds: u.HoldBackSeconds, WindowSeconds: u.WindowSeconds,
		Priority: u.Priority, Degrade: u.Degrade, Require: u.Require, Prefer: u.Prefer,
	}))
	if err != nil {
		return err
	}
	return c.print(s, func(t *table) {
		t.row("ID", "PROFILE", "KEY")
		t.row(s.ID, s.Profile, s.Key)
	})
}

// StreamListCmd is `dionysia stream ls`.
type StreamListCmd struct {
	Flags
}

// Run lists all streams.
func (cmd *StreamListCmd) Run(ctx *Context) error {
	return list(ctx, &cmd.Flags, func(c *session, limit *int, after *string) (reply, error) {
		return c.client.ListStreamsWithResponse(c.Ctx, &wire.ListStreamsParams{Limit: limit, After: after})
	}, func(t *table, all []wire.Stream) {
		t.row("ID", "NAME", "PROFILE", "DISABLED", "CREATED")
		for _, s := range all {
			t.row(s.ID, s.Name, s.Profile, yes(s.Disabled), clock(s.CreatedAt))
		}
	})
}

// StreamGetCmd is `dionysia stream get`.
type StreamGetCmd struct {
	Flags
	ID string `arg:""`
}

// Run shows the stream.
func (cmd *StreamGetCmd) Run(ctx *Context) error {
	c, err := cmd.connect(ctx)
	if err != nil {
		return err
	}
	s, err := answer[wire.Stream](c.client.GetStreamWithResponse(c.Ctx, cmd.ID))
	if err != nil {
		return err
	}
	return c.printStream(s)
}

func (c *session) printStream(s *wire.Stream) error {
	return c.print(s, func(t *table) {
		t.row("id", s.ID)
		t.row("name", s.Name)
		t.row("profile", s.Profile)
		t.row("disabled", yes(s.Disabled))
		t.row("grace", seconds(s.GraceSeconds))
		t.row("hold back", seconds(s.HoldBackSeconds))
		t.row("window", seconds(s.WindowSeconds))
		t.row("priority", fmt.Sprint(s.Priority))
		t.row("require", orNone(s.Require))
		t.row("prefer", orNone(s.Prefer))
		t.row("degrade", yes(s.Degrade))
		t.row("created", clock(s.CreatedAt))
		t.row("updated", clock(s.UpdatedAt))
		t.row("version", fmt.Sprint(s.Version))
	})
}

// StreamUpdateCmd is `dionysia stream update`.
type StreamUpdateCmd struct {
	Flags
	ID        string `arg:""`
	IfVersion int64  `placeholder:"N" help:"Change it only while it is at this version."`
	settings
}

// Run changes the stream.
func (cmd *StreamUpdateCmd) Run(ctx *Context) error {
	c, err := cmd.connect(ctx)
	if err != nil {
		return err
	}
	params := &wire.UpdateStreamParams{IfMatch: etag(cmd.IfVersion)}
	s, err := answer[wire.Stream](c.client.UpdateStreamWithResponse(c.Ctx, cmd.ID, params, cmd.update()))
	if err != nil {
		return err
	}
	return c.printStream(s)
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "-"
	}
	return strings.Join(list, ", ")
}

func etag(version int64) *string {
	if version == 0 {
		return nil
	}
	e := fmt.Sprintf("%q", fmt.Sprint(version))
	return &e
}

// StreamDeleteCmd is `dionysia stream delete`.
type StreamDeleteCmd struct {
	Flags
	ID string `arg:""`
}

// Run deletes the stream.
func (cmd *StreamDeleteCmd) Run(ctx *Context) error {
	c, err := cmd.connect(ctx)
	if err != nil {
		return err
	}
	return success(c.client.DeleteStreamWithResponse(c.Ctx, cmd.ID))
}

// StreamRotateCmd is `dionysia stream rotate-key`.
type StreamRotateCmd struct {
	Flags
	ID string `arg:""`
}

// Run replaces the key.
func (cmd *StreamRotateCmd) Run(ctx *Context) error {
	c, err := cmd.connect(ctx)
	if err != nil {
		return err
	}
	s, err := answer[wire.StreamKey](c.client.RotateStreamKeyWithResponse(c.Ctx, cmd.ID))
	if err != nil {
		return err
	}
	return c.print(s, func(t *table) {
		t.row("ID", "KEY")
		t.row(s.ID, s.Key)
	})
}
