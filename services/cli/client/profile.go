package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/goccy/go-yaml"

	"github.com/dionysia-dev/dionysia/services/api/wire"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// ProfileCmd is `dionysia profile`.
type ProfileCmd struct {
	List   ProfileListCmd   `cmd:"" name:"ls" aliases:"list" help:"List the profiles."`
	Get    ProfileGetCmd    `cmd:"" help:"Show a profile; -o json prints what apply takes."`
	Apply  ProfileApplyCmd  `cmd:"" help:"Create or replace profiles from a file."`
	Delete ProfileDeleteCmd `cmd:"" aliases:"rm" help:"Delete a profile that no stream uses."`
}

// ProfileListCmd is `dionysia profile ls`.
type ProfileListCmd struct {
	Flags
}

// Run lists all profiles.
func (cmd *ProfileListCmd) Run(ctx *Context) error {
	return list(ctx, &cmd.Flags, func(c *session, limit *int, after *string) (reply, error) {
		return c.client.ListProfilesWithResponse(c.Ctx, &wire.ListProfilesParams{Limit: limit, After: after})
	}, func(t *table, all []wire.Profile) {
		t.row("NAME", "BUILT IN", "VIDEO", "AUDIO", "VERSION")
		for _, p := range all {
			t.row(p.Name, yes(p.BuiltIn), fmt.Sprint(len(p.Video)), fmt.Sprint(len(p.Audio)), fmt.Sprint(p.Version))
		}
	})
}

// ProfileGetCmd is `dionysia profile get`.
type ProfileGetCmd struct {
	Flags
	Name string `arg:""`
}

// Run shows the profile.
func (cmd *ProfileGetCmd) Run(ctx *Context) error {
	c, err := cmd.connect(ctx)
	if err != nil {
		return err
	}
	p, err := answer[wire.Profile](c.client.GetProfileWithResponse(c.Ctx, cmd.Name))
	if err != nil {
		return err
	}
	return c.print(p, func(t *table) {
		t.row("RENDITION", "CODEC", "SIZE", "FPS", "KBIT/S", "KEYFRAMES", "PRESET")
		for _, v := range p.Video {
			fps := "source"
			if v.Fps != nil && *v.Fps > 0 {
				fps = fmt.Sprint(*v.Fps)
			}
			t.row(v.Name, orDash(v.Codec, text), fmt.Sprintf("%dx%d", v.Width, v.Height), fps,
				fmt.Sprint(v.Bitrate/1000), orDash(v.KeyframeSeconds, seconds), orDash(v.Preset, text))
		}
		for _, a := range p.Audio {
			channels := orDash(a.Channels, func(n int) string { return fmt.Sprintf("%d ch", n) })
			t.row(a.Name, orDash(a.Codec, text), channels, "-", fmt.Sprint(a.Bitrate/1000), "-", "-")
		}
	})
}

// ProfileApplyCmd is `dionysia profile apply`.
type ProfileApplyCmd struct {
	Flags
	File string `short:"f" required:"" placeholder:"FILE" help:"YAML or JSON, one profile a document; - is the standard input."`
}

// profileFile is a document of the file: a profile as `profile get -o json`
// prints it. A version makes the change conditional on it.
type profileFile struct {
	Name    string `json:"name"`
	Version int64  `json:"version"`
	BuiltIn bool   `json:"built_in"`
	wire.ProfileSpec
}

// Run applies every document in turn and stops at the first that fails.
func (cmd *ProfileApplyCmd) Run(ctx *Context) error {
	c, err := cmd.connect(ctx)
	if err != nil {
		return err
	}
	var raw []byte
	if cmd.File == "-" {
		raw, err = io.ReadAll(c.stdin())
	} else {
		raw, err = os.ReadFile(cmd.File)
	}
	if err != nil {
		return fmt.Errorf("reading the profiles: %w", err)
	}
	profiles, err := parseProfiles(raw)
	if err != nil {
		return fmt.Errorf("reading the profiles in %s: %w", cmd.File, err)
	}
	for _, p := range profiles {
		res, err := c.client.PutProfileWithResponse(c.Ctx, p.Name, &wire.PutProfileParams{IfMatch: etag(p.Version)}, p.ProfileSpec)
		done, err := answer[wire.Profile](res, err)
		if err != nil {
			return fmt.Errorf("profile %s: %w", p.Name, err)
		}
		verb := "replaced"
		if res.StatusCode() == http.StatusCreated {
			verb = "created"
		}
		if err := c.line(done, fmt.Sprintf("profile %s %s, version %d", done.Name, verb, done.Version)); err != nil {
			return err
		}
	}
	return nil
}

func (c *session) stdin() io.Reader {
	if c.Stdin != nil {
		return c.Stdin
	}
	return os.Stdin
}

// parseProfiles reads YAML, which JSON is a part of, and refuses fields that
// it does not know.
func parseProfiles(raw []byte) ([]profileFile, error) {
	var out []profileFile
	documents := yaml.NewDecoder(bytes.NewReader(raw))
	for n := 1; ; n++ {
		var any any
		err := documents.Decode(&any)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		if any == nil {
			continue
		}
		asJSON, err := json.Marshal(any)
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		var p profileFile
		d := json.NewDecoder(bytes.NewReader(asJSON))
		d.DisallowUnknownFields()
		if err := d.Decode(&p); err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		if p.Name == "" {
			return nil, fmt.Errorf("document %d: it has no name", n)
		}
		if err := stream.CheckName(p.Name); err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		out = append(out, p)
	}
	if len(out) == 0 {
		return nil, errors.New("there is no profile in it")
	}
	return out, nil
}

// ProfileDeleteCmd is `dionysia profile delete`.
type ProfileDeleteCmd struct {
	Flags
	Name string `arg:""`
}

// Run deletes the profile.
func (cmd *ProfileDeleteCmd) Run(ctx *Context) error {
	c, err := cmd.connect(ctx)
	if err != nil {
		return err
	}
	return success(c.client.DeleteProfileWithResponse(c.Ctx, cmd.Name))
}
